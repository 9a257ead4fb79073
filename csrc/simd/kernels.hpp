#pragma once

#include <cstddef>
#include <cstdint>

namespace fastdino {

// Bytes that every buffer handed to a kernel must have beyond its last element: kernels work on whole
// registers and may read, and write, that far.
constexpr std::size_t kSlack = 64;

constexpr int kCoefficientBits = 22;

// Two neighbouring coefficients of a resampling filter, of 22 fractional bits, for two rows. Each is cut in
// two, so that narrow multiplications keep all of it: high parts are signed shorts, low parts unsigned shorts
// of kShortLowBits or signed bytes of fewer. Every part of a pair lies in one int, the first row's below the
// second's, as they are multiplied; a pair of bytes is there twice.
struct TapPair {
  std::int32_t high;
  std::int32_t low;
};
constexpr int kShortLowBits = 11;

// The coefficients of one output element; `low_bits` is kShortLowBits, or 6 or 7 for low parts of a byte.
struct Filter {
  const TapPair* pairs;
  int taps;
  int low_bits;
};

// One pass of Pillow's extended box filter: out = (near * sum of the middle rows + far * sum of the two outer
// rows) / 2^24, rounded.
struct BoxWeights {
  int radius;  // the middle rows are y - radius .. y + radius
  std::uint32_t near;
  std::uint32_t far;
};

// How a byte becomes what the network sees: (byte / 255 - mean) / deviation, as torchvision computes it.
struct Normalization {
  float mean;
  float deviation;
};

// The inner loops, compiled once for each instruction set. Every one gives the same bits in each of them.
struct Kernels {
  const char* name;
  // Whether filters may have low parts of a byte.
  bool multiplies_bytes;

  // out[i] = clip(sum over the taps t of coefficient t * in[t * stride + i]), i < count.
  void (*weigh_rows)(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const Filter& filter,
                     int count);
  // out[i] from rows[-radius - 1 .. radius + 1][i], i < count.
  void (*box_rows)(std::uint8_t* out, const std::uint8_t* const* rows, BoxWeights weights, int count);

  // Pillow's Image.blend with a solid `ground`: x -> ground + factor * (x - ground), clipped.
  void (*blend_solid)(std::uint8_t* plane, int ground, float factor, int count);
  // The same with each pixel's own luma.
  void (*blend_luma)(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, float factor, int count);
  // Pillow's "L": (19595 r + 38470 g + 7471 b + 2^15) >> 16.
  void (*luma)(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b,
               int count);
  std::uint64_t (*sum)(const std::uint8_t* plane, int count);
  // RGB -> HSV, `shift` added to the hue modulo 256, -> RGB, all with Pillow's roundings.
  void (*shift_hue)(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, int shift, int count);

  // The last pass: solarise if asked to, convert, store exactly `count` elements.
  void (*store_bytes)(std::uint8_t* out, const std::uint8_t* plane, bool solarize, int count);
  void (*store_float)(float* out, const std::uint8_t* plane, bool solarize, Normalization how, int count);
  void (*store_bfloat)(std::uint16_t* out, const std::uint8_t* plane, bool solarize, Normalization how,
                       int count);
};

// The fastest ones that this CPU runs, or those that the environment variable FASTDINO_SIMD names.
// Throws std::invalid_argument if it names none that can run here.
const Kernels& kernels();

}  // namespace fastdino
