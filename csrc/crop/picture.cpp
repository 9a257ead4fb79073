#include "crop/picture.hpp"

#include "crop/transpose.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastdino {
namespace {

// 64 MB: some 20 megapixels.
constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

constexpr std::ptrdiff_t round_up(std::ptrdiff_t value, std::ptrdiff_t unit) {
  return (value + unit - 1) / unit * unit;
}

// One plane's 16 bytes of each of 16 pixels of `step` bytes; 4-byte pixels are taken apart four at a time.
void take_channels(std::uint8_t* const* planes, int channels, const std::uint8_t* pixels, int step) {
#if defined(__SSE2__)
  if (step == 4 && channels == 3) {
    const auto* from = reinterpret_cast<const __m128i*>(pixels);
    const __m128i low_byte = _mm_set1_epi32(0xFF);
    const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
    const __m128i c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
    const auto gather = [&](auto part) {
      return _mm_packus_epi16(_mm_packs_epi32(part(a), part(b)), _mm_packs_epi32(part(c), part(d)));
    };
    const __m128i red = gather([&](__m128i v) { return _mm_and_si128(v, low_byte); });
    const __m128i green = gather([&](__m128i v) { return _mm_and_si128(_mm_srli_epi32(v, 8), low_byte); });
    const __m128i blue = gather([&](__m128i v) { return _mm_and_si128(_mm_srli_epi32(v, 16), low_byte); });
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[0]), red);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[1]), green);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[2]), blue);
    return;
  }
#endif
  for (int i = 0; i < kTile; ++i) {
    for (int channel = 0; channel < channels; ++channel) planes[channel][i] = pixels[i * step + channel];
  }
}

}  // namespace

void Picture::resize(int width, int height, int channels) {
  width_ = width;
  height_ = height;
  channels_ = channels;
  column_stride_ = round_up(height, kTile);
  plane_size_ = column_stride_ * round_up(width, kTile);
  // Transposing a crop reads whole tiles, and so up to 15 columns beyond the last one.
  const std::ptrdiff_t bytes = plane_size_ * channels + column_stride_ * kTile;
  planes_.reserve(static_cast<std::size_t>(bytes));
}

void Picture::shrink() {
  if (planes_.size() > kKeptBytes) planes_.release();
}

void Picture::put_rows(int top, int rows, const std::uint8_t* lines, std::size_t line_size, int step) {
  alignas(16) std::uint8_t tiles[3][kBand * kTile];
  for (int left = 0; left < width_; left += kTile) {
    for (int row = 0; row < rows; ++row) {
      std::uint8_t* const planes[3] = {tiles[0] + row * kTile, tiles[1] + row * kTile,
                                       tiles[2] + row * kTile};
      take_channels(planes, channels_, lines + static_cast<std::size_t>(row) * line_size + left * step, step);
    }
    for (int channel = 0; channel < channels_; ++channel) {
      std::uint8_t* corner = planes_.data() + channel * plane_size_ + left * column_stride_ + top;
      transpose_tile(corner, column_stride_, tiles[channel], kTile);
    }
  }
}

}  // namespace fastdino
