#include "pool/file_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace fastdino {
namespace {

// As MOST_BYTES in fastdino/data/sources/protocol.py.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 30;

class File {
 public:
  explicit File(const char* path) : descriptor_(open(path, O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return descriptor_ >= 0; }

  bool size(std::int64_t& bytes) const {
    struct stat status;
    if (fstat(descriptor_, &status) != 0) return false;
    if (S_ISDIR(status.st_mode)) {
      errno = EISDIR;
      return false;
    }
    bytes = status.st_size;
    return true;
  }

  // Fewer bytes than asked for only at the end of the file; -1 on an error.
  std::int64_t read_at(std::int64_t offset, std::uint8_t* to, std::int64_t size) const {
    std::int64_t done = 0;
    while (done < size) {
      const ssize_t got = pread(descriptor_, to + done, static_cast<std::size_t>(size - done), offset + done);
      if (got == 0) break;
      if (got < 0) {
        if (errno == EINTR) continue;
        return -1;
      }
      done += got;
    }
    return done;
  }

 private:
  int descriptor_;
};

bool fail(std::string& reason) {
  char words[128];
  reason = strerror_r(errno, words, sizeof words);
  return false;
}

// Good until the same thread's next call, which takes the same memory.
const char* path_of(const FileTable& table, std::uint64_t file) {
  thread_local std::string path;
  const std::int64_t begin = file == 0 ? 0 : table.ends[file - 1];
  path = table.root;
  if (!path.empty()) path += '/';
  path.append(table.names + begin, static_cast<std::size_t>(table.ends[file] - begin));
  return path.c_str();
}

}  // namespace

bool read_from_file(const FileTable& table, std::uint64_t index, std::vector<std::uint8_t>& bytes,
                    std::string& reason) {
  const File file(
      path_of(table, table.file == nullptr ? index : static_cast<std::uint64_t>(table.file[index])));
  std::int64_t offset = 0, size = 0;
  if (!file.is_open()) return fail(reason);
  if (table.file != nullptr) {
    offset = table.offset[index];
    size = table.size[index];
  } else if (!file.size(size)) {
    return fail(reason);
  }
  if (size > kMostBytes) {
    reason = "larger than 1 GiB";
    return false;
  }
  bytes.resize(static_cast<std::size_t>(size));
  const std::int64_t got = file.read_at(offset, bytes.data(), size);
  if (got < 0) return fail(reason);
  if (got < size && table.file != nullptr) {
    reason = "the shard ends before the picture does";
    return false;
  }
  bytes.resize(static_cast<std::size_t>(got));
  return true;
}

}  // namespace fastdino
