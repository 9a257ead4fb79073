#include "transpose.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastdino {

#if defined(__SSE2__)
void transpose_tile(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in, std::ptrdiff_t in_stride) {
  __m128i rows[kTile], zipped[kTile];
  for (int y = 0; y < kTile; ++y) {
    rows[y] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + y * in_stride));
  }
  // Zipping row i with row i + 8 four times over is a perfect shuffle of all index bits: a transposition.
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kTile / 2; ++i) {
      zipped[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + kTile / 2]);
      zipped[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + kTile / 2]);
    }
    for (int i = 0; i < kTile; ++i) rows[i] = zipped[i];
  }
  for (int x = 0; x < kTile; ++x) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x * out_stride), rows[x]);
}
#else
void transpose_tile(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in, std::ptrdiff_t in_stride) {
  for (int x = 0; x < kTile; ++x) {
    for (int y = 0; y < kTile; ++y) out[x * out_stride + y] = in[y * in_stride + x];
  }
}
#endif

void transpose(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in, std::ptrdiff_t in_stride,
               int rows, int columns) {
  for (int x = 0; x < columns; x += kTile) {
    for (int y = 0; y < rows; y += kTile) {
      transpose_tile(out + x * out_stride + y, out_stride, in + y * in_stride + x, in_stride);
    }
  }
}

}  // namespace fastdino
