// What libFuzzer calls with its inventions: the first bytes choose a recipe and a draw, the rest is a file.
// The same binary, given files, runs each of them once.
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "jpeg/decoder.hpp"
#include "jpeg/header.hpp"
#include "programs/support.hpp"

namespace {

using namespace fastdino;
using namespace fastdino::testing;

constexpr std::size_t kChoices = 8;
constexpr int kMostPixels = 1 << 18;  // larger pictures take long and teach nothing new
constexpr int kSizes[] = {1, 2, 7, 16, 33, 48, 64, 96};

// libjpeg is not compiled for fuzzing, and so the fuzzer cannot see which of its branches run. What it says
// when it refuses is counted in their stead, without the numbers in it.
__attribute__((section("__libfuzzer_extra_counters"))) std::uint8_t refusals[256];

void count_refusal(const char* message) {
  unsigned hash = 0;
  for (; *message != '\0'; ++message) {
    if (*message < '0' || *message > '9') hash = hash * 31 + static_cast<unsigned char>(*message);
  }
  refusals[hash % sizeof refusals] = 1;
}

bool is_small(const std::uint8_t* data, std::size_t size) {
  try {
    const JpegHeader header = read_jpeg_header(data, size);
    return header.width <= kMostPixels / header.height;
  } catch (const std::invalid_argument& refused) {
    count_refusal(refused.what());
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static JpegDecoder decoder;
  static Picture picture;
  static Cropper croppers[] = {Cropper(PassOrder::kHorizontalFirst), Cropper(PassOrder::kShrinkingFirst)};
  if (size < kChoices) return 0;
  const std::uint8_t *choices = data, *file = data + kChoices;
  const std::size_t file_size = size - kChoices;
  if (!is_small(file, file_size)) return 0;
  if (!decoder.decode(file, file_size, picture)) {
    count_refusal(decoder.message());
    return 0;
  }
  Recipe recipe = recipe_of(kSizes[choices[0] % 8], kSizes[choices[0] / 8 % 8], 1);
  recipe.global_scale[0] = choices[1] / 255.0 * recipe.global_scale[1];
  recipe.local_scale[0] = choices[2] / 255.0 * recipe.local_scale[1];
  const std::uint64_t seed = choices[3], index = choices[4] | std::uint64_t{choices[5]} << 56;
  for (int crop = 0; crop < recipe.crops(); ++crop) {
    const CropPlan plan = draw_crop(recipe, seed, choices[6], index, crop, picture.width(), picture.height());
    cut(croppers[choices[7] % 2], picture, plan, static_cast<Output>(choices[7] / 2 % 3));
  }
  const int side = recipe.global_size, row = choices[1], column = choices[2];
  const int height = side + row + choices[3], width = side + column + choices[4];
  const bool flip = choices[6] % 2 == 1;
  resized(croppers[choices[7] % 2], picture,
          {0, 0, picture.height(), picture.width(), height, width, row, column, side, flip});
  return 0;
}
