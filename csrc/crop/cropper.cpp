#include "crop/cropper.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "crop/transpose.hpp"

namespace fastdino {
namespace {

// Pixels that a run of colour operations works on while they are in the first-level cache.
constexpr int kBlock = 2048;
constexpr int kBlurPasses = 3;

// ImageNet's, red, green, blue: fastdino.data.normalize.
constexpr Normalization kNormalization[3] = {{0.485F, 0.229F}, {0.456F, 0.224F}, {0.406F, 0.225F}};

constexpr std::ptrdiff_t whole_tiles(std::ptrdiff_t size) {
  return (size + kTile - 1) / kTile * kTile;
}

// The widest of any instruction set.
constexpr std::ptrdiff_t whole_registers(std::ptrdiff_t size) {
  constexpr std::ptrdiff_t widest = kSlack;
  return (size + widest - 1) / widest * widest;
}

std::uint8_t* reserve(Buffer& buffer, std::ptrdiff_t size) {
  return buffer.reserve(static_cast<std::size_t>(size));
}

// Three passes of this box are Pillow's GaussianBlur: src/libImaging/BoxBlur.c after Gwosdek et al. 2011,
// with its mixture of single and double precision.
BoxWeights box_weights(double gaussian_radius) {
  const auto radius = static_cast<float>(gaussian_radius);
  const float variance = radius * radius / kBlurPasses;
  const auto length = static_cast<float>(std::sqrt(12.0 * variance + 1.0));
  const auto whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  part /= 6 * (variance - (whole + 1) * (whole + 1));
  const float box = whole + part;
  const int middle = static_cast<int>(box);
  const auto near = static_cast<std::uint32_t>(static_cast<float>(1 << 24) / (box * 2 + 1));
  const std::uint32_t far = ((1U << 24) - static_cast<std::uint32_t>(middle * 2 + 1) * near) / 2;
  return {middle, near, far};
}

}  // namespace

void Cropper::cut(const Picture& picture, const CropPlan& plan, Output output, void* out, Stopwatch& watch) {
  watch.start();
  resample(picture,
           {plan.top, plan.left, plan.height, plan.width, plan.size, plan.size, 0, 0, plan.size, plan.flip});
  watch.until_now(kResample);
  color(plan);
  watch.until_now(kColor);
  if (plan.blur_radius != 0.0) {
    blur(plan.blur_radius, plan.size);
    watch.until_now(kBlur);
  }
  store(plan.size, plan.solarize, output, out);
  watch.until_now(kStore);
}

void Cropper::resize(const Picture& picture, const Resize& how, std::uint8_t* out) {
  resample(picture, how);
  store(how.size, false, Output::kBytes, out);
}

void Cropper::resample(const Picture& picture, const Resize& how) {
  const int size = how.size;
  channels_ = picture.channels();
  // Transposing reads whole tiles, and so up to 15 rows below the last one. In a crop of one to three pixels
  // those are too few to keep the last register that is written away from the next plane.
  plane_stride_ = whole_tiles(static_cast<std::ptrdiff_t>(size) * (size + kTile) + std::ptrdiff_t{kSlack});
  reserve(planes_, 3 * plane_stride_);
  columns_ = &tables_.get(how.width, how.to_width);
  rows_ = &tables_.get(how.height, how.to_height);
  const bool shrinks =
      how.height > how.to_height && how.height - how.to_height > 2 * (how.width - how.to_width);
  for (int channel = 0; channel < channels_; ++channel) {
    if (shrinks && order_ == PassOrder::kShrinkingFirst) {
      vertical_first(picture, how, channel);
    } else {
      horizontal_first(picture, how, channel);
    }
  }
}

void Cropper::horizontal_first(const Picture& picture, const Resize& how, int channel) {
  const std::ptrdiff_t stride = whole_tiles(how.size);
  // What is kept of the result looks at some of the rows only.
  const Window &top = rows_->window(how.first_row), &bottom = rows_->window(how.first_row + how.size - 1);
  const int rows = bottom.first + bottom.taps - top.first;
  std::uint8_t* between = reserve(between_, stride * whole_tiles(rows));
  weigh_columns(between, stride, rows, how, [&](const Window& window, std::ptrdiff_t& column_stride) {
    column_stride = picture.column_stride();
    return picture.column(channel, how.left + window.first) + how.top + top.first;
  });
  weigh_rows(plane(channel), how.size, between, stride, how.size, how, top.first);
}

void Cropper::vertical_first(const Picture& picture, const Resize& how, int channel) {
  const std::ptrdiff_t width = whole_tiles(how.width), size = whole_tiles(how.size);
  std::uint8_t* upright = reserve(turned_, width * whole_tiles(how.height));
  transpose(upright, width, picture.column(channel, how.left) + how.top, picture.column_stride(), how.width,
            how.height);
  std::uint8_t* shrunk = reserve(between_, width * size);
  weigh_rows(shrunk, width, upright, width, how.width, how, 0);
  std::uint8_t* turned = reserve(spare_, width * size);
  transpose(turned, size, shrunk, width, how.size, how.width);
  // Whole tiles of columns do not fit into rows of `size` elements.
  std::uint8_t* padded = reserve(turned_, size * size);
  weigh_columns(padded, size, how.size, how, [&](const Window& window, std::ptrdiff_t& column_stride) {
    column_stride = size;
    return turned + window.first * size;
  });
  for (int y = 0; y < how.size; ++y) {
    std::memcpy(plane(channel) + static_cast<std::ptrdiff_t>(y) * how.size, padded + y * size,
                static_cast<std::size_t>(how.size));
  }
}

// The horizontal pass and the flip: `columns` gives the first column of a window and their distance, the
// columns have `rows` elements; the result lies row after row.
template <typename ColumnsOf>
void Cropper::weigh_columns(std::uint8_t* out, std::ptrdiff_t out_stride, int rows, const Resize& how,
                            ColumnsOf columns) {
  const std::ptrdiff_t strip_stride = whole_tiles(rows);
  std::uint8_t* strip = reserve(strip_, strip_stride * kTile);
  for (int left = 0; left < how.size; left += kTile) {
    const int width = std::min(kTile, how.size - left);
    for (int i = 0; i < width; ++i) {
      const int column_out = how.flip ? how.size - 1 - (left + i) : left + i;
      const Window& window = columns_->window(how.first_column + column_out);
      std::ptrdiff_t column_stride;
      const std::uint8_t* column = columns(window, column_stride);
      kernels_.weigh_rows(strip + i * strip_stride, column, column_stride, columns_->filter(window), rows);
    }
    for (int top = 0; top < rows; top += kTile) {
      transpose_tile(out + top * out_stride + left, out_stride, strip + top, strip_stride);
    }
  }
}

// The vertical pass; `in` begins with row `first_in` of the box.
// A row's end may be overwritten by the register that ends beyond it, but the next row is written after that.
void Cropper::weigh_rows(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                         std::ptrdiff_t in_stride, int columns, const Resize& how, int first_in) {
  for (int y = 0; y < how.size; ++y) {
    const Window& window = rows_->window(how.first_row + y);
    kernels_.weigh_rows(out + y * out_stride, in + (window.first - first_in) * in_stride, in_stride,
                        rows_->filter(window), columns);
  }
}

void Cropper::color(const CropPlan& plan) {
  const auto is_contrast = [](const JitterStep& step) { return step.operation == Jitter::kContrast; };
  const auto begin = plan.jitter.begin(), end = begin + plan.jitter_steps;
  const auto contrast = std::find_if(begin, end, is_contrast);
  int done = 0, mean = 0;
  if (contrast != end) {
    // The mean of what the steps before it leave behind: a pass of its own.
    done = static_cast<int>(contrast - begin);
    mean = mean_luma(plan, done);
  }
  if (done == plan.jitter_steps && !plan.grayscale) return;
  std::uint8_t luma[kBlock + kSlack];
  const int pixels = plan.size * plan.size;
  for (int first = 0; first < pixels; first += kBlock) {
    const int count = std::min(kBlock, pixels - first);
    for (int step = done; step < plan.jitter_steps; ++step) {
      jitter_block(plan.jitter[static_cast<std::size_t>(step)], mean, first, count);
    }
    if (plan.grayscale && channels_ == 3) {
      luma_block(luma, first, count);
      std::memcpy(plane(0) + first, luma, static_cast<std::size_t>(count));
    }
  }
  if (plan.grayscale) channels_ = 1;
}

int Cropper::mean_luma(const CropPlan& plan, int steps) {
  std::uint8_t luma[kBlock + kSlack];
  const int pixels = plan.size * plan.size;
  std::uint64_t total = 0;
  for (int first = 0; first < pixels; first += kBlock) {
    const int count = std::min(kBlock, pixels - first);
    for (int step = 0; step < steps; ++step) {
      jitter_block(plan.jitter[static_cast<std::size_t>(step)], 0, first, count);
    }
    if (channels_ == 3) {
      luma_block(luma, first, count);
      total += kernels_.sum(luma, count);
    } else {
      total += kernels_.sum(plane(0) + first, count);
    }
  }
  return static_cast<int>(static_cast<double>(total) / pixels + 0.5);
}

void Cropper::luma_block(std::uint8_t* luma, std::ptrdiff_t first, int count) const {
  kernels_.luma(luma, plane(0) + first, plane(1) + first, plane(2) + first, count);
}

void Cropper::jitter_block(const JitterStep& step, int mean, std::ptrdiff_t first, int count) {
  const auto factor = static_cast<float>(step.factor);
  std::uint8_t *r = plane(0) + first, *g = plane(1) + first, *b = plane(2) + first;
  // A grey pixel is its own luma and has no hue: the last two change nothing.
  const bool colored = channels_ == 3;
  switch (step.operation) {
    case Jitter::kBrightness:
      for (int channel = 0; channel < channels_; ++channel)
        kernels_.blend_solid(plane(channel) + first, 0, factor, count);
      break;
    case Jitter::kContrast:
      for (int channel = 0; channel < channels_; ++channel) {
        kernels_.blend_solid(plane(channel) + first, mean, factor, count);
      }
      break;
    case Jitter::kSaturation:
      if (colored) kernels_.blend_luma(r, g, b, factor, count);
      break;
    case Jitter::kHue:
      if (colored) kernels_.shift_hue(r, g, b, static_cast<int>(step.factor * 255), count);
      break;
  }
}

void Cropper::blur(double radius, int size) {
  const BoxWeights weights = box_weights(radius);
  // Rows must not share registers: what a pass writes beyond a row's end, another may still have to read.
  const std::ptrdiff_t stride = whole_registers(size), bytes = stride * whole_tiles(size);
  std::uint8_t *turned = reserve(turned_, bytes), *spare = reserve(spare_, bytes),
               *back = reserve(between_, bytes);
  for (int channel = 0; channel < channels_; ++channel) {
    transpose(turned, stride, plane(channel), size, size, size);
    blur_rows(turned, spare, stride, back, stride, weights, size);
    transpose(turned, stride, back, stride, size, size);
    blur_rows(turned, spare, stride, plane(channel), size, weights, size);
  }
}

// The three passes from row to row, each as far behind the one before it as its box reaches: what it reads is
// in the first-level cache still, and what it overwrites nobody needs any more. Rows beyond the edge are the
// edge's.
void Cropper::blur_rows(std::uint8_t* in, std::uint8_t* spare, std::ptrdiff_t stride, std::uint8_t* out,
                        std::ptrdiff_t out_stride, BoxWeights weights, int size) {
  const int reach = weights.radius + 1;
  row_pointers_.resize(static_cast<std::size_t>(2 * reach + 1));
  const std::uint8_t** middle = row_pointers_.data() + reach;
  const auto pass = [&](std::uint8_t* to, std::ptrdiff_t to_stride, const std::uint8_t* from, int y) {
    for (int d = -reach; d <= reach; ++d) middle[d] = from + std::clamp(y + d, 0, size - 1) * stride;
    kernels_.box_rows(to + y * to_stride, middle, weights, size);
  };
  for (int y = 0; y < size + 2 * reach; ++y) {
    const int second = y - reach, third = y - 2 * reach;
    if (y < size) pass(spare, stride, in, y);
    if (0 <= second && second < size) pass(in, stride, spare, second);
    if (0 <= third) pass(out, out_stride, in, third);
  }
}

void Cropper::store(int size, bool solarize, Output output, void* out) const {
  const int pixels = size * size;
  for (int channel = 0; channel < 3; ++channel) {
    const std::uint8_t* from = plane(channels_ == 1 ? 0 : channel);
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(channel) * pixels;
    const Normalization how = kNormalization[channel];
    switch (output) {
      case Output::kBytes:
        kernels_.store_bytes(static_cast<std::uint8_t*>(out) + first, from, solarize, pixels);
        break;
      case Output::kFloat:
        kernels_.store_float(static_cast<float*>(out) + first, from, solarize, how, pixels);
        break;
      case Output::kBfloat:
        kernels_.store_bfloat(static_cast<std::uint16_t*>(out) + first, from, solarize, how, pixels);
        break;
    }
  }
}

}  // namespace fastdino
