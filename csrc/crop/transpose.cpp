#include "crop/transpose.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastdino {

#if defined(__SSE2__)
namespace {

__m128i load(const std::uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// Eight rows of sixteen: half of a tile, because the sixteen rows of a whole one and what they turn into do
// not fit into sixteen registers.
void transpose_half(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                    std::ptrdiff_t in_stride) {
  __m128i rows[8], zipped[8];
  for (int y = 0; y < 8; ++y) rows[y] = load(in + y * in_stride);
  // Zipping row i with row i + 4 three times over moves the three bits of the row's number into the column's.
  for (int i = 0; i < 4; ++i) {
    zipped[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 4]);
    zipped[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 4]);
  }
  // The first round leaves columns 0 to 7 in the even registers and 8 to 15 in the odd ones.
  for (int half = 0; half < 2; ++half) {
    const __m128i a = _mm_unpacklo_epi8(zipped[half], zipped[4 + half]);
    const __m128i b = _mm_unpackhi_epi8(zipped[half], zipped[4 + half]);
    const __m128i c = _mm_unpacklo_epi8(zipped[2 + half], zipped[6 + half]);
    const __m128i d = _mm_unpackhi_epi8(zipped[2 + half], zipped[6 + half]);
    const __m128i pairs[4] = {_mm_unpacklo_epi8(a, c), _mm_unpackhi_epi8(a, c), _mm_unpacklo_epi8(b, d),
                              _mm_unpackhi_epi8(b, d)};
    for (int pair = 0; pair < 4; ++pair) {
      std::uint8_t* column = out + (8 * half + 2 * pair) * out_stride;
      _mm_storel_epi64(reinterpret_cast<__m128i*>(column), pairs[pair]);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(column + out_stride),
                       _mm_unpackhi_epi64(pairs[pair], pairs[pair]));
    }
  }
}

}  // namespace

void transpose_tile(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                    std::ptrdiff_t in_stride) {
  transpose_half(out, out_stride, in, in_stride);
  transpose_half(out + 8, out_stride, in + 8 * in_stride, in_stride);
}
#else
void transpose_tile(std::uint8_t* out, std::ptrdiff_t out_stride, const std::uint8_t* in,
                    std::ptrdiff_t in_stride) {
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
