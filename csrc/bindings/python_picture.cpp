#include "bindings/python_picture.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "crop/transpose.hpp"

namespace fastdino {

void take_pixels(const PixelArray& pixels, Picture& picture) {
  constexpr int step = 3;
  if (pixels.ndim() != 3 || pixels.shape(2) != step || pixels.size() == 0) {
    throw std::invalid_argument("a picture is an array of shape (height, width, 3)");
  }
  const auto height = static_cast<int>(pixels.shape(0)), width = static_cast<int>(pixels.shape(1));
  picture.resize(width, height, step);
  // Rows are taken in whole tiles, so the last ones need room behind them.
  const std::size_t line_size = static_cast<std::size_t>(width) * step;
  std::vector<std::uint8_t> band(line_size * Picture::kBand + kTile * step);
  for (int top = 0; top < height; top += Picture::kBand) {
    const int rows = std::min(Picture::kBand, height - top);
    std::memcpy(band.data(), pixels.data(top, 0, 0), line_size * static_cast<std::size_t>(rows));
    picture.put_rows(top, rows, band.data(), line_size, step);
  }
}

}  // namespace fastdino
