// The pool with several threads: sources in memory and on disk, pictures that cannot be read, exceptions,
// cancelling and closing while it is busy. The files named on the command line are its pictures.
#include "pool/pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "pool/file_source.hpp"
#include "programs/support.hpp"

namespace {

using namespace fastdino;
using namespace fastdino::testing;

constexpr int kThreads[] = {1, 2, 5};
constexpr int kSamples = 5, kBatches = 4, kGlobalSize = 24, kLocalSize = 9, kLocalCrops = 2;
constexpr std::uint64_t kUnreadable = 1, kForeign = 2;

// Picture kUnreadable has no bytes to read; kForeign is no JPEG.
class MemorySource : public PictureSource {
 public:
  explicit MemorySource(std::vector<Bytes> files) : files_(std::move(files)) {
    files_[kForeign] = {'G', 'I', 'F'};
  }

  bool read(std::uint64_t index, Bytes& bytes, std::string& reason) override {
    bytes = files_[index];
    if (index == kUnreadable) reason = "unreadable";
    return index != kUnreadable;
  }
  bool decode(const Bytes& bytes, Picture& picture, std::string& reason) override {
    if (bytes.size() != 3) {
      reason = "neither JPEG nor GIF";
      return false;
    }
    // A line is taken sixteen pixels at a time.
    const Bytes lines(16 * 3 * 2, bytes[0]);
    picture.resize(5, 2, 3);
    picture.put_rows(0, 2, lines.data(), 16 * 3, 3);
    return true;
  }
  std::size_t size() const { return files_.size(); }

 private:
  std::vector<Bytes> files_;
};

// Throws at every third picture.
class ThrowingSource : public MemorySource {
 public:
  using MemorySource::MemorySource;
  bool read(std::uint64_t index, Bytes& bytes, std::string& reason) override {
    if (index % 3 == 0) throw std::runtime_error("picture " + std::to_string(index));
    return MemorySource::read(index, bytes, reason);
  }
};

// Sees to it that pictures are asked for one after another in their order.
class SequentialSource : public MemorySource {
 public:
  using MemorySource::MemorySource;
  bool read(std::uint64_t index, Bytes& bytes, std::string& reason) override {
    require(!busy_.exchange(true), "two readers of a sequential source");
    require(index >= last_, "a sequential source was asked to go back");
    last_ = index;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    busy_ = false;
    return MemorySource::read(index, bytes, reason);
  }

 private:
  std::atomic<bool> busy_ = false;
  std::uint64_t last_ = 0;  // guarded by nothing but the pool's promise
};

class NothingReadable : public MemorySource {
 public:
  using MemorySource::MemorySource;
  bool read(std::uint64_t, Bytes&, std::string& reason) override {
    reason = "gone";
    return false;
  }
};

class FilesSource : public MemorySource {
 public:
  FilesSource(std::vector<Bytes> files, FileTable table)
      : MemorySource(std::move(files)), table_(std::move(table)) {}
  bool read(std::uint64_t index, Bytes& bytes, std::string& reason) override {
    if (index == kUnreadable || index == kForeign) return MemorySource::read(index, bytes, reason);
    return read_from_file(table_, index, bytes, reason);
  }

 private:
  FileTable table_;
};

PoolSettings settings(std::size_t pictures, int threads, bool sequential = false) {
  const Recipe recipe = recipe_of(kGlobalSize, kLocalSize, kLocalCrops);
  return {recipe, 7, pictures, threads, PassOrder::kShrinkingFirst, Output::kFloat, sequential};
}

// A batch and its memory, of exactly its size.
struct Order {
  explicit Order(std::uint64_t first) {
    const Recipe recipe = recipe_of(kGlobalSize, kLocalSize, kLocalCrops);
    batch.epoch = 3;
    batch.first = first;
    batch.count = kSamples;
    for (int crop = 0; crop < recipe.crops(); ++crop) {
      const auto size = static_cast<std::size_t>(recipe.size(crop));
      memory.emplace_back(kSamples * 3 * size * size);
    }
    for (std::vector<float>& block : memory) batch.crops.push_back(block.data());
  }
  std::vector<std::vector<float>> memory;
  Batch batch{};
};

std::unique_ptr<Batch> wait(Pool& pool) {
  for (int patience = 0; patience < 600; ++patience) {
    if (std::unique_ptr<Batch> batch = pool.wait(100)) return batch;
  }
  require(false, "a batch is not done after a minute");
  return nullptr;
}

struct Result {
  std::vector<std::vector<float>> crops;
  std::vector<std::uint64_t> used;
  std::vector<std::pair<std::uint64_t, std::string>> skipped;
  bool operator==(const Result& other) const {
    return crops == other.crops && used == other.used && skipped == other.skipped;
  }
};

// kBatches batches from `pool`, all submitted before the first is taken.
std::vector<Result> run(Pool& pool) {
  std::vector<Order> orders;
  for (int i = 0; i < kBatches; ++i) orders.emplace_back(static_cast<std::uint64_t>(i) * kSamples);
  for (Order& order : orders) pool.submit(order.batch);
  std::vector<Result> results;
  for (Order& order : orders) {
    std::unique_ptr<Batch> batch = wait(pool);
    require(!batch->error && !batch->unreadable, "a batch failed");
    // In which order two threads meet unreadable pictures is theirs.
    std::sort(batch->skipped.begin(), batch->skipped.end());
    results.push_back({std::move(order.memory), batch->used, batch->skipped});
  }
  return results;
}

std::vector<Result> run(std::shared_ptr<MemorySource> source, int threads, bool sequential = false) {
  const std::size_t pictures = source->size();
  Pool pool(settings(pictures, threads, sequential), std::move(source));
  return run(pool);
}

template <typename Source>
std::vector<Result> same_for_all_threads(const std::vector<Bytes>& files, bool sequential) {
  const std::vector<Result> expected = run(std::make_shared<Source>(files), 1, sequential);
  for (const int threads : kThreads) {
    require(run(std::make_shared<Source>(files), threads, sequential) == expected,
            "batches depend on the number of threads");
  }
  bool skipped = false;
  for (const Result& result : expected) skipped = skipped || !result.skipped.empty();
  require(skipped, "no unreadable picture was met");
  return expected;
}

// Whole files, and the same in one shard, give what they give from memory.
void files_are_as_memory(const std::vector<Bytes>& files, int count, char** paths,
                         const std::vector<Result>& expected) {
  std::string names;
  std::vector<std::int64_t> ends, offsets, sizes;
  std::string shard_bytes;
  for (int i = 1; i < count; ++i) {
    names += paths[i];
    ends.push_back(static_cast<std::int64_t>(names.size()));
    const Bytes& file = files[static_cast<std::size_t>(i - 1)];
    offsets.push_back(static_cast<std::int64_t>(shard_bytes.size()));
    sizes.push_back(static_cast<std::int64_t>(file.size()));
    shard_bytes.append(file.begin(), file.end());
  }
  const FileTable whole{"", names.data(), ends.data(), nullptr, nullptr, nullptr};
  require(run(std::make_shared<FilesSource>(files, whole), 5) == expected, "files differ from memory");

  const std::string folder = std::string(paths[1]).substr(0, std::string(paths[1]).rfind('/')),
                    shard = "shard.tar";
  std::ofstream(folder + "/" + shard, std::ios::binary) << shard_bytes;
  const std::vector<std::int32_t> in_file(offsets.size(), 0);
  const std::vector<std::int64_t> end = {static_cast<std::int64_t>(shard.size())};
  FileTable packed{folder, shard.data(), end.data(), in_file.data(), offsets.data(), sizes.data()};
  require(run(std::make_shared<FilesSource>(files, packed), 5) == expected, "shards differ from memory");

  Bytes bytes;
  std::string reason;
  sizes.back() += 1;
  require(!read_from_file(packed, sizes.size() - 1, bytes, reason) && !reason.empty(),
          "a shard's end was not seen");
  std::remove((folder + "/" + shard).c_str());
  require(!read_from_file(packed, 0, bytes, reason) && !reason.empty(), "a missing shard was not seen");
  const FileTable is_folder{"", folder.data(), end.data(), nullptr, nullptr, nullptr};
  const std::vector<std::int64_t> folder_end = {static_cast<std::int64_t>(folder.size())};
  require(
      !read_from_file({"", folder.data(), folder_end.data(), nullptr, nullptr, nullptr}, 0, bytes, reason),
      "a folder was read");
}

void exceptions_surface(const std::vector<Bytes>& files) {
  Pool pool(settings(files.size(), 5), std::make_shared<ThrowingSource>(files));
  int failed = 0;
  for (std::uint64_t first = 0; first < files.size(); first += kSamples) {
    Order order(first);
    pool.submit(order.batch);
    const std::unique_ptr<Batch> batch = wait(pool);
    if (!batch->error) continue;
    ++failed;
    try {
      std::rethrow_exception(batch->error);
    } catch (const std::runtime_error& error) {
      require(error.what() == "picture " + std::to_string(batch->error_index) ||
                  batch->error_index == kUnreadable,
              "an exception names another picture");
    }
  }
  require(failed > 0, "no exception came through");
}

void nothing_readable_is_said(const std::vector<Bytes>& files) {
  Pool pool(settings(files.size(), 2), std::make_shared<NothingReadable>(files));
  Order order(0);
  pool.submit(order.batch);
  require(wait(pool)->unreadable, "a set without one readable picture went through");
}

// Cancelled batches write into no memory any more, and what is submitted then is as if nothing had been.
void cancels(const std::vector<Bytes>& files, const std::vector<Result>& expected) {
  for (const int threads : kThreads) {
    Pool pool(settings(files.size(), threads), std::make_shared<MemorySource>(files));
    for (int round = 0; round < 8; ++round) {
      {
        Order first(0), second(kSamples);
        pool.submit(first.batch);
        pool.submit(second.batch);
        pool.wait(round % 4);
        pool.cancel();
      }
      if (round % 4 == 3) require(run(pool) == expected, "cancelling changed what came after it");
    }
  }
}

void closes_while_busy(const std::vector<Bytes>& files) {
  for (int round = 0; round < 24; ++round) {
    Order first(0), second(kSamples);
    Pool pool(settings(files.size(), kThreads[round % 3], round % 2 != 0),
              std::make_shared<MemorySource>(files));
    pool.submit(first.batch);
    pool.submit(second.batch);
    pool.wait(round % 4);
    for (const double seconds : pool.spent()) require(seconds >= 0, "time ran backwards");
  }
}

}  // namespace

int main(int count, char** paths) {
  const std::vector<Bytes> files = read_files(count, paths);
  require(files.size() >= kBatches * kSamples, "a run takes more pictures than there are");
  const std::vector<Result> expected = same_for_all_threads<MemorySource>(files, false);
  same_for_all_threads<SequentialSource>(files, true);
  files_are_as_memory(files, count, paths, expected);
  exceptions_surface(files);
  nothing_readable_is_said(files);
  cancels(files, expected);
  closes_while_busy(files);
  std::printf("pool: the same batches for 1, 2 and 5 threads, from memory and from disk; no fault\n");
}
