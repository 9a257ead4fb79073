#pragma once

#include <cstddef>
#include <cstdint>

namespace fastdino {

constexpr int kTile = 16;

// out[x * out_stride + y] = in[y * in_stride + x] for 16 rows and 16 columns.
void transpose_tile(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                    std::ptrdiff_t in_stride);

// The same for any size, in whole tiles: up to 15 rows and columns beyond it are read and written too.
void transpose(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in, std::ptrdiff_t in_stride,
               int rows, int columns);

}  // namespace fastdino
