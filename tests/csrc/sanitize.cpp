// Reads the header of every file named on the command line, decodes it and cuts crops of several sizes out of
// it, whole, cut at every length and with bytes changed. It is built with the sanitizers, which end it on the
// first bad access, overflow or leak.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <vector>

#include "crop/cropper.hpp"
#include "crop/plan.hpp"
#include "jpeg/decoder.hpp"
#include "jpeg/header.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kDamagedCopies = 5000;
constexpr int kMostChanges = 8;
constexpr std::uint64_t kPlans = 300;

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// A copy of exactly the given length on the heap: an access one byte beyond it is seen.
bool readable(const Bytes& bytes) {
  const Bytes exact(bytes.begin(), bytes.end());
  try {
    fastdino::read_jpeg_header(exact.data(), exact.size());
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// All crops of a file that can be decoded, into memory of exactly their size. Damage may make a small file
// claim to be a large picture, of which there is nothing new to learn.
void cut_crops(const Bytes& bytes, std::uint64_t index) {
  constexpr int kMostPixels = 1 << 18;
  static fastdino::JpegDecoder decoder;
  static fastdino::Cropper croppers[2] = {fastdino::Cropper(fastdino::PassOrder::kHorizontalFirst),
                                          fastdino::Cropper(fastdino::PassOrder::kShrinkingFirst)};
  static fastdino::Picture picture;
  const Bytes exact(bytes.begin(), bytes.end());
  try {
    const fastdino::JpegHeader header = fastdino::read_jpeg_header(exact.data(), exact.size());
    if (header.width > kMostPixels / header.height) return;
  } catch (const std::invalid_argument&) {
    return;
  }
  if (!decoder.decode(exact.data(), exact.size(), picture)) return;
  constexpr int kSizes[] = {1, 7, 16, 33, 48};
  const fastdino::Recipe recipe{
      {0.4, 1.0},        {0.05, 0.4},           1,
      kSizes[index % 5], kSizes[index / 5 % 5], {{{0.6, 1.4}, {0.6, 1.4}, {0.8, 1.2}, {-0.1, 0.1}}}};
  fastdino::Stopwatch watch;
  for (int crop = 0; crop < recipe.crops(); ++crop) {
    const fastdino::CropPlan plan =
        fastdino::draw_crop(recipe, 0, 0, index, crop, picture.width(), picture.height());
    const auto output = static_cast<fastdino::Output>(index % 3);
    const std::size_t elements = std::size_t{3} * static_cast<std::size_t>(plan.size * plan.size);
    Bytes out(elements * fastdino::item_size(output));
    croppers[index % 2].cut(picture, plan, output, out.data(), watch);
  }
}

Bytes damaged(Bytes bytes, std::mt19937& draw) {
  const unsigned changes = 1 + draw() % kMostChanges;
  for (unsigned i = 0; i < changes; ++i) bytes[draw() % bytes.size()] = static_cast<std::uint8_t>(draw());
  return bytes;
}

}  // namespace

int main(int count, char** paths) {
  std::mt19937 draw(0);
  int read = 0, refused = 0;
  for (int i = 1; i < count; ++i) {
    const Bytes file = read_file(paths[i]);
    if (!readable(file)) {
      std::fprintf(stderr, "%s: a good file was refused\n", paths[i]);
      return 1;
    }
    for (std::size_t length = 0; length < file.size(); ++length) {
      ++(readable(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length))) ? read : refused);
    }
    for (int copy = 0; copy < kDamagedCopies; ++copy) ++(readable(damaged(file, draw)) ? read : refused);
    for (std::uint64_t plan = 0; plan < kPlans; ++plan) {
      cut_crops(file, plan);
      cut_crops(damaged(file, draw), plan);
    }
  }
  std::printf("sanitizers: %d files whole, %d damaged ones read, %d refused, no fault\n", count - 1, read,
              refused);
  return 0;
}
