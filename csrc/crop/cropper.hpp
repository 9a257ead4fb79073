#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "crop/buffer.hpp"
#include "crop/picture.hpp"
#include "crop/plan.hpp"
#include "crop/resample_table.hpp"
#include "crop/stages.hpp"
#include "simd/kernels.hpp"

namespace fastdino {

enum class Output { kBytes, kFloat, kBfloat };
constexpr std::size_t item_size(Output output) {
  return output == Output::kBytes ? 1 : output == Output::kFloat ? 4 : 2;
}

// Which pass of a resize Pillow does first. From 13 on the vertical one comes first where it makes the
// picture much smaller; the order changes roundings.
enum class PassOrder { kHorizontalFirst, kShrinkingFirst };

// A box of a picture is resized to to_width x to_height pixels, of which a square of `size` is kept; with
// `flip` its columns come last to first.
struct Resize {
  int top, left, height, width;
  int to_height, to_width;
  int first_row, first_column, size;
  bool flip;
};

// Carries out one crop's plan on a decoded picture, with the numbers that Pillow and torchvision give. One
// per thread: its buffers are kept, so that no memory is asked for once the largest picture has passed.
class Cropper {
 public:
  explicit Cropper(PassOrder order) : order_(order) {}

  // Writes (3, size, size) elements to `out`.
  void cut(const Picture& picture, const CropPlan& plan, Output output, void* out, Stopwatch& watch);
  // Writes (3, size, size) bytes to `out`.
  void resize(const Picture& picture, const Resize& how, std::uint8_t* out);

 private:
  void resample(const Picture& picture, const Resize& how);
  void horizontal_first(const Picture& picture, const Resize& how, int channel);
  void vertical_first(const Picture& picture, const Resize& how, int channel);
  template <typename ColumnsOf>
  void weigh_columns(std::uint8_t* out, std::ptrdiff_t out_stride, int rows, const Resize& how,
                     ColumnsOf columns);
  void weigh_rows(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                  std::ptrdiff_t in_stride, int columns, const Resize& how, int first_in);

  void color(const CropPlan& plan);
  void jitter_block(const JitterStep& step, int mean, std::ptrdiff_t first, int count);
  void luma_block(std::uint8_t* luma, std::ptrdiff_t first, int count) const;
  int mean_luma(const CropPlan& plan, int steps);

  void blur(double radius, int size);
  void blur_rows(std::uint8_t* in, std::uint8_t* spare, std::ptrdiff_t stride, std::uint8_t* out,
                 std::ptrdiff_t out_stride, BoxWeights weights, int size);

  void store(int size, bool solarize, Output output, void* out) const;
  std::uint8_t* plane(int channel) const { return planes_.data() + channel * plane_stride_; }

  PassOrder order_;
  const Kernels& kernels_ = kernels();
  ResampleTables tables_{kernels_.multiplies_bytes};
  const ResampleTable *columns_ = nullptr, *rows_ = nullptr;  // the resize's
  Buffer planes_, strip_, between_, turned_, spare_;
  std::vector<const std::uint8_t*> row_pointers_;
  std::ptrdiff_t plane_stride_ = 0;
  int channels_ = 0;
};

}  // namespace fastdino
