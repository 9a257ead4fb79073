// Operations on single pixels, written so that compilers vectorise them: no branches, no calls, exact counts.
// Included once for each instruction set. Floating-point contraction must be off: the roundings are Pillow's.
#pragma once

#include "simd/kernels.hpp"

namespace fastdino {
namespace {

using Byte = std::uint8_t;

// Pillow turns x >= 128 into 255 - x, which is then the smaller of the two.
inline int solarized(int x) {
  return x < 255 - x ? x : 255 - x;
}

// x / 255 without a division: the first factor has so few digits that its product is exact, the second holds
// the rest, and so only the sum is rounded, as the quotient would be.
inline float over_255(int x) {
  constexpr float coarse = 0x1.0101p-8F, fine = 1.0 / 255.0 - 0x1.0101p-8;
  return static_cast<float>(x) * coarse + static_cast<float>(x) * fine;
}

inline float normalized(int x, Normalization how) {
  return (over_255(x) - how.mean) / how.deviation;
}

// Rounds to nearest, ties to even; there is no infinity or NaN among the values.
inline std::uint16_t bfloat(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void store_bytes(Byte* __restrict out, const Byte* __restrict plane, bool solarize, int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = static_cast<Byte>(solarized(plane[i]));
  } else {
    for (int i = 0; i < count; ++i) out[i] = plane[i];
  }
}

void store_float(float* __restrict out, const Byte* __restrict plane, bool solarize, Normalization how,
                 int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = normalized(solarized(plane[i]), how);
  } else {
    for (int i = 0; i < count; ++i) out[i] = normalized(plane[i], how);
  }
}

void store_bfloat(std::uint16_t* __restrict out, const Byte* __restrict plane, bool solarize,
                  Normalization how, int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = bfloat(normalized(solarized(plane[i]), how));
  } else {
    for (int i = 0; i < count; ++i) out[i] = bfloat(normalized(plane[i], how));
  }
}

}  // namespace
}  // namespace fastdino
