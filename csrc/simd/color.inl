// Colour jitter and luma, with Pillow's roundings. Floating-point contraction must be off. Included once for
// each instruction set.
#pragma once

#include "simd/kernels.hpp"
#include "simd/registers.inl"

namespace fastdino {
namespace {

using Floats = Vec::Floats;

// ground + factor * (x - ground); what lies outside 0 .. 255 is clipped when it is packed.
inline Register blended(Floats x, Floats ground, Floats factor) {
  return Vec::truncate(Vec::add(ground, Vec::multiply(factor, Vec::subtract(x, ground))));
}

void blend_solid(std::uint8_t* plane, int solid, float by, int count) {
  const Floats ground = Vec::every_float(static_cast<float>(solid)), factor = Vec::every_float(by);
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register ints[4];
    widen(Vec::load(plane + i), ints);
    for (Register& part : ints) part = blended(Vec::to_floats(part), ground, factor);
    Vec::store(plane + i, pack(ints));
  }
}

// kBytes pixels: their channels and their luma as ints.
struct Pixels {
  Register r[4], g[4], b[4], luma[4];
};

// Red and green, then green and blue, side by side as shorts: that is what a pairwise multiplication takes,
// and from where shifts and masks take single channels as ints.
inline void load_pixels(const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b,
                        Register red_green[4], Register green_blue[4]) {
  zip_rows(r, g, red_green);
  zip_rows(g, b, green_blue);
}

// Pillow's weights out of 65536; green's is too large for a signed short and is taken in halves.
inline Register luma_of(Register red_green, Register green_blue) {
  const Register upper = Vec::multiply_pairs(red_green, Vec::pairs(19595, 19235));
  const Register lower = Vec::multiply_pairs(green_blue, Vec::pairs(19235, 7471));
  const Register sum = Vec::add_ints(Vec::add_ints(upper, lower), Vec::every_int(0x8000));
  return Vec::shift_right_unsigned<16>(sum);
}

void luma(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, int count) {
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register red_green[4], green_blue[4], sums[4];
    load_pixels(r + i, g + i, b + i, red_green, green_blue);
    for (int part = 0; part < 4; ++part) sums[part] = luma_of(red_green[part], green_blue[part]);
    Vec::store(out + i, pack(sums));
  }
}

std::uint64_t sum(const std::uint8_t* plane, int count) {
  const int whole = count - count % Vec::kBytes;
  Register totals = Vec::zero();
  for (int i = 0; i < whole; i += Vec::kBytes) {
    totals = Vec::add_longs(totals, Vec::sum_bytes(Vec::load(plane + i)));
  }
  std::uint8_t bytes[Vec::kBytes];
  Vec::store(bytes, totals);
  std::uint64_t parts[Vec::kBytes / 8], total = 0;
  __builtin_memcpy(parts, bytes, sizeof parts);
  for (const std::uint64_t part : parts) total += part;
  for (int i = whole; i < count; ++i) total += plane[i];
  return total;
}

void blend_luma(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, float by, int count) {
  const Floats factor = Vec::every_float(by);
  const Register first = Vec::every_int(0xFFFF);
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register red_green[4], green_blue[4], red[4], green[4], blue[4];
    load_pixels(r + i, g + i, b + i, red_green, green_blue);
    for (int part = 0; part < 4; ++part) {
      const Floats ground = Vec::to_floats(luma_of(red_green[part], green_blue[part]));
      red[part] = blended(Vec::to_floats(Vec::and_ints(red_green[part], first)), ground, factor);
      green[part] = blended(Vec::to_floats(Vec::shift_right_unsigned<16>(red_green[part])), ground, factor);
      blue[part] = blended(Vec::to_floats(Vec::shift_right_unsigned<16>(green_blue[part])), ground, factor);
    }
    Vec::store(r + i, pack(red));
    Vec::store(g + i, pack(green));
    Vec::store(b + i, pack(blue));
  }
}

}  // namespace
}  // namespace fastdino
