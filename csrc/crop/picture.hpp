#pragma once

#include <cstddef>
#include <cstdint>

#include "crop/buffer.hpp"

namespace fastdino {

// A decoded picture, one plane a channel, column after column: column x of plane c begins at column(c, x) and
// has `height` bytes. Resampling begins horizontally, and columns one after another make that a sum of rows.
class Picture {
 public:
  // Makes room for a picture; its pixels are whatever was there before.
  void resize(int width, int height, int channels);
  // Room beyond what one picture in a thousand needs is given back.
  void shrink();
  // Fills the rows [top, top + rows) from `rows` lines of interleaved bytes with `step` bytes a pixel, of
  // which the first `channels` are used. `rows` is at most kBand.
  void put_rows(int top, int rows, const std::uint8_t* lines, std::size_t line_size, int step);

  int width() const { return width_; }
  int height() const { return height_; }
  int channels() const { return channels_; }
  std::ptrdiff_t column_stride() const { return column_stride_; }
  const std::uint8_t* column(int channel, int x) const {
    return planes_.data() + static_cast<std::ptrdiff_t>(channel) * plane_size_ + x * column_stride_;
  }

  static constexpr int kBand = 16;

 private:
  Buffer planes_;
  int width_ = 0, height_ = 0, channels_ = 0;
  std::ptrdiff_t column_stride_ = 0, plane_size_ = 0;
};

}  // namespace fastdino
