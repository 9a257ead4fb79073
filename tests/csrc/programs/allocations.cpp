// Counts requests for memory while the same pictures pass again: the crops must need none, decoding no more
// than a bare libjpeg, the pool none for a sample.
#include <atomic>
#include <cstdio>
#include <memory>

// jpeglib.h needs size_t and FILE, and does not include what declares them.
#include <jpeglib.h>

#include "jpeg/decoder.hpp"
#include "pool/file_source.hpp"
#include "pool/pool.hpp"
#include "programs/support.hpp"

namespace {

std::atomic<long> requests = 0;

}  // namespace

// glibc's own, under the names by which it calls them itself. operator new comes here too.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);

void* malloc(std::size_t size) noexcept {
  ++requests;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
  ++requests;
  return __libc_calloc(count, size);
}
void* realloc(void* from, std::size_t size) noexcept {
  ++requests;
  return __libc_realloc(from, size);
}
}

namespace {

using namespace fastdino;
using namespace fastdino::testing;

constexpr std::uint64_t kPlans = 20;
constexpr int kSize = 40, kLocalSize = 17, kLocalCrops = 2;

// What libjpeg asks for to decode a file into lines that are there already.
long of_bare_libjpeg(const Bytes& file, Bytes& line) {
  const long before = requests;
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&info, TRUE);
  if (info.num_components == 3) info.out_color_space = JCS_EXT_RGBX;
  jpeg_start_decompress(&info);
  line.resize(std::size_t{4} * info.output_width);
  JSAMPROW row = line.data();
  while (info.output_scanline < info.output_height) jpeg_read_scanlines(&info, &row, 1);
  jpeg_destroy_decompress(&info);
  return requests - before;
}

class FilesOnly : public PictureSource {
 public:
  explicit FilesOnly(FileTable table) : table_(std::move(table)) {}
  bool read(std::uint64_t index, Bytes& bytes, std::string& reason) override {
    return read_from_file(table_, index, bytes, reason);
  }
  bool decode(const Bytes&, Picture&, std::string&) override { return false; }

 private:
  FileTable table_;
};

struct Desk {
  JpegDecoder decoder;
  Picture picture;
  Cropper croppers[2] = {Cropper(PassOrder::kHorizontalFirst), Cropper(PassOrder::kShrinkingFirst)};
  std::vector<float> out = std::vector<float>(3 * kSize * kSize);
  Stopwatch watch;

  long decode(const Bytes& file) {
    const long before = requests;
    const bool decoded = decoder.decode(file.data(), file.size(), picture);
    const long asked = requests - before;
    require(decoded, "a good file was refused");
    return asked;
  }
  long cut() {
    const long before = requests;
    const Recipe recipe = recipe_of(kSize, kLocalSize, kLocalCrops);
    for (std::uint64_t index = 0; index < kPlans; ++index) {
      for (int crop = 0; crop < recipe.crops(); ++crop) {
        const CropPlan plan = draw_crop(recipe, 0, 0, index, crop, picture.width(), picture.height());
        for (Cropper& cropper : croppers) {
          for (const Output output : {Output::kBytes, Output::kFloat, Output::kBfloat}) {
            cropper.cut(picture, plan, output, out.data(), watch);
          }
        }
      }
    }
    return requests - before;
  }
};

void crops_ask_for_nothing(const std::vector<Bytes>& files) {
  const auto desk = std::make_unique<Desk>();
  for (const Bytes& file : files) {
    desk->decode(file);
    desk->cut();
  }
  Bytes line;
  long bare = 0, decoding = 0, cutting = 0;
  for (const Bytes& file : files) of_bare_libjpeg(file, line);
  for (const Bytes& file : files) {
    bare += of_bare_libjpeg(file, line);
    decoding += desk->decode(file);
    cutting += desk->cut();
  }
  require(bare > 0, "nothing is counted");
  require(decoding <= bare,
          "decoding asks " + std::to_string(decoding) + " times, libjpeg " + std::to_string(bare));
  require(cutting == 0, "cutting crops asks for memory " + std::to_string(cutting) + " times");
  std::printf("allocations: %ld by libjpeg for %zu files, none for their crops\n", bare, files.size());
}

// Requests while all `files` pass through a warm pool, `batches` batches a pass; the batch's own are in it.
long of_pool(const std::vector<Bytes>& files, const FileTable& table, int batches) {
  const Recipe recipe = recipe_of(kSize, kLocalSize, kLocalCrops);
  const int count = static_cast<int>(files.size()) / batches;
  Pool pool({recipe, 0, files.size(), 1, PassOrder::kShrinkingFirst, Output::kFloat, true},
            std::make_shared<FilesOnly>(table));
  std::vector<float> memory(std::size_t{3} * kSize * kSize * files.size());
  long asked = 0;
  for (int pass = 0; pass < 2; ++pass) {
    const long before = requests;
    for (int i = 0; i < batches; ++i) {
      Batch batch{};
      batch.first = static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(count);
      batch.count = count;
      batch.crops.assign(static_cast<std::size_t>(recipe.crops()), memory.data());
      pool.submit(std::move(batch));
      std::unique_ptr<Batch> done;
      while (!done) done = pool.wait(100);
      require(!done->error && done->skipped.empty(), "a batch failed");
    }
    asked = requests - before;
  }
  return asked;
}

void samples_ask_for_nothing(std::vector<Bytes> files, char** paths) {
  constexpr int kBatches = 2;
  files.resize(files.size() / kBatches * kBatches);
  std::string names;
  std::vector<std::int64_t> ends;
  for (std::size_t i = 0; i < files.size(); ++i) {
    names += paths[i + 1];
    ends.push_back(static_cast<std::int64_t>(names.size()));
  }
  const FileTable table{"", names.data(), ends.data(), nullptr, nullptr, nullptr};
  Bytes line;
  long bare = 0;
  for (const Bytes& file : files) bare += of_bare_libjpeg(file, line);
  const long one_batch = of_pool(files, table, 1), two_batches = of_pool(files, table, kBatches);
  const long for_a_batch = two_batches - one_batch;
  require(one_batch - for_a_batch <= bare, "the pool asks for memory " +
                                               std::to_string(one_batch - for_a_batch - bare) +
                                               " times for " + std::to_string(files.size()) + " samples");
  std::printf("allocations: %ld for a batch of the pool, none for its samples\n", for_a_batch);
}

}  // namespace

int main(int count, char** paths) {
  const std::vector<Bytes> files = read_files(count, paths);
  crops_ask_for_nothing(files);
  samples_ask_for_nothing(files, paths);
}
