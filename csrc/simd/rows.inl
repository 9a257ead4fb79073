// Weighted sums of rows, the one shape that both resampling passes and both blurring directions have. Included
// once for each instruction set, behind its Vec.
#pragma once

#include "simd/kernels.hpp"
#include "simd/registers.inl"

namespace fastdino {
namespace {

// The ints that stand for kBytes columns.
struct Sums {
  Register part[4];

  void add(const Register pixels[4], Register factors) {
    for (int i = 0; i < 4; ++i) part[i] = Vec::add_ints(part[i], Vec::multiply_pairs(pixels[i], factors));
  }
};

void weigh_rows(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const TapPair* pairs, int taps,
                int count) {
  const Register half = Vec::every_int(1 << (kCoefficientBits - 1)), zero = Vec::zero();
  for (int i = 0; i < count; i += Vec::kBytes) {
    Sums high{{zero, zero, zero, zero}}, low{{half, half, half, half}};
    const std::uint8_t* row = in + i;
    for (int tap = 0; tap < taps; tap += 2, row += 2 * stride) {
      const TapPair& pair = pairs[tap / 2];
      Register pixels[4];
      // The partner of a last, single tap has coefficient 0; its row may lie outside the picture.
      zip_rows(row, tap + 1 < taps ? row + stride : row, pixels);
      high.add(pixels, Vec::pairs(pair.high[0], pair.high[1]));
      low.add(pixels, Vec::pairs(pair.low[0], pair.low[1]));
    }
    Register sums[4];
    for (int part = 0; part < 4; ++part) {
      const Register sum = Vec::add_ints(Vec::shift_left<kLowBits>(high.part[part]), low.part[part]);
      sums[part] = Vec::shift_right_signed<kCoefficientBits>(sum);
    }
    Vec::store(out + i, pack(sums));
  }
}

struct Shorts {
  Register low, high;

  void add(const std::uint8_t* row) {
    const Register bytes = Vec::load(row), zero = Vec::zero();
    low = Vec::add_shorts(low, Vec::zip_low_bytes(bytes, zero));
    high = Vec::add_shorts(high, Vec::zip_high_bytes(bytes, zero));
  }
};

void box_rows(std::uint8_t* out, const std::uint8_t* const* rows, BoxWeights weights, int count) {
  const Register zero = Vec::zero(), half = Vec::every_int(1 << 23);
  const auto upper = [](std::uint32_t weight) { return static_cast<std::int16_t>(weight >> kLowBits); };
  const auto lower = [](std::uint32_t weight) { return static_cast<std::int16_t>(weight & ((1 << kLowBits) - 1)); };
  const Register high_weights = Vec::pairs(upper(weights.near), upper(weights.far));
  const Register low_weights = Vec::pairs(lower(weights.near), lower(weights.far));
  const int outer = weights.radius + 1;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Shorts near{zero, zero}, far{zero, zero};
    for (int row = -weights.radius; row <= weights.radius; ++row) near.add(rows[row] + i);
    far.add(rows[-outer] + i);
    far.add(rows[outer] + i);
    const Register pairs[4] = {Vec::zip_low_shorts(near.low, far.low), Vec::zip_high_shorts(near.low, far.low),
                               Vec::zip_low_shorts(near.high, far.high), Vec::zip_high_shorts(near.high, far.high)};
    Register sums[4];
    for (int part = 0; part < 4; ++part) {
      const Register high = Vec::shift_left<kLowBits>(Vec::multiply_pairs(pairs[part], high_weights));
      const Register low = Vec::add_ints(Vec::multiply_pairs(pairs[part], low_weights), half);
      sums[part] = Vec::shift_right_unsigned<24>(Vec::add_ints(high, low));
    }
    Vec::store(out + i, pack(sums));
  }
}

}  // namespace
}  // namespace fastdino
