// What the kernels share: bytes as ints and back. Included once for each instruction set, whose Vec
// FASTDINO_VEC names.
#pragma once

#include FASTDINO_VEC

namespace fastdino {
namespace {

using Register = Vec::Register;

// Columns of two rows as shorts a0 b0 a1 b1 ..., in the order in which zipping leaves them.
inline void zip_rows(const std::uint8_t* a, const std::uint8_t* b, Register pixels[4]) {
  const Register first = Vec::load(a), second = Vec::load(b), zero = Vec::zero();
  const Register low = Vec::zip_low_bytes(first, second), high = Vec::zip_high_bytes(first, second);
  pixels[0] = Vec::zip_low_bytes(low, zero);
  pixels[1] = Vec::zip_high_bytes(low, zero);
  pixels[2] = Vec::zip_low_bytes(high, zero);
  pixels[3] = Vec::zip_high_bytes(high, zero);
}

// Bytes as ints, in that order too.
inline void widen(Register bytes, Register ints[4]) {
  const Register zero = Vec::zero();
  const Register low = Vec::zip_low_bytes(bytes, zero), high = Vec::zip_high_bytes(bytes, zero);
  ints[0] = Vec::zip_low_shorts(low, zero);
  ints[1] = Vec::zip_high_shorts(low, zero);
  ints[2] = Vec::zip_low_shorts(high, zero);
  ints[3] = Vec::zip_high_shorts(high, zero);
}

// Ints in that order as bytes, clipped to 0 .. 255.
inline Register pack(const Register ints[4]) {
  return Vec::pack_shorts(Vec::pack_ints(ints[0], ints[1]), Vec::pack_ints(ints[2], ints[3]));
}

}  // namespace
}  // namespace fastdino
