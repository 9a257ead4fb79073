// Weighted sums of rows, the one shape that both resampling passes and both blurring directions have.
// Included once for each instruction set.
#pragma once

#include "simd/kernels.hpp"
#include "simd/registers.inl"

namespace fastdino {
namespace {

// Half of the columns of a register, `kHalf` 0 or 1, in the two parts that zipping makes of them: with all
// four the sums would not stay in registers.
template <int kHalf, int kPairs>
inline void weigh_half(const std::uint8_t* row, std::ptrdiff_t stride, const TapPair* pairs, int pair_count,
                       bool ends_alone, Register sums[2]) {
  const Register zero = Vec::zero(), half = Vec::every_int(1 << (kCoefficientBits - 1));
  Register high[2] = {zero, zero}, low[2] = {half, half};
  const int count = kPairs > 0 ? kPairs : pair_count;
  for (int i = 0; i < count; ++i, row += 2 * stride) {
    // The partner of a last, single tap has coefficient 0; its row may lie outside the picture.
    const Register first = Vec::load(row),
                   second = Vec::load(ends_alone && i == count - 1 ? row : row + stride);
    const Register zipped =
        kHalf == 0 ? Vec::zip_low_bytes(first, second) : Vec::zip_high_bytes(first, second);
    const Register pixels[2] = {Vec::zip_low_bytes(zipped, zero), Vec::zip_high_bytes(zipped, zero)};
    const Register upper = Vec::every_int(pairs[i].high), lower = Vec::every_int(pairs[i].low);
    for (int part = 0; part < 2; ++part) {
      high[part] = Vec::add_ints(high[part], Vec::multiply_pairs(pixels[part], upper));
      low[part] = Vec::add_ints(low[part], Vec::multiply_pairs(pixels[part], lower));
    }
  }
  for (int part = 0; part < 2; ++part) {
    const Register sum = Vec::add_ints(Vec::shift_left<kLowBits>(high[part]), low[part]);
    sums[part] = Vec::shift_right_signed<kCoefficientBits>(sum);
  }
}

template <int kPairs>
void weigh_rows_of(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const TapPair* pairs,
                   int taps, int count) {
  const int pair_count = (taps + 1) / 2;
  const bool ends_alone = taps % 2 != 0;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register sums[4];
    weigh_half<0, kPairs>(in + i, stride, pairs, pair_count, ends_alone, sums);
    weigh_half<1, kPairs>(in + i, stride, pairs, pair_count, ends_alone, sums + 2);
    Vec::store(out + i, pack(sums));
  }
}

void weigh_rows(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const TapPair* pairs,
                int taps, int count) {
  // Crops of a photograph have four to eight taps; loops of known length take a third less time.
  switch ((taps + 1) / 2) {
    case 2:
      return weigh_rows_of<2>(out, in, stride, pairs, taps, count);
    case 3:
      return weigh_rows_of<3>(out, in, stride, pairs, taps, count);
    case 4:
      return weigh_rows_of<4>(out, in, stride, pairs, taps, count);
    default:
      return weigh_rows_of<0>(out, in, stride, pairs, taps, count);
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
  const auto lower = [](std::uint32_t weight) {
    return static_cast<std::int16_t>(weight & ((1 << kLowBits) - 1));
  };
  const Register high_weights = Vec::pairs(upper(weights.near), upper(weights.far));
  const Register low_weights = Vec::pairs(lower(weights.near), lower(weights.far));
  const int outer = weights.radius + 1;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Shorts near{zero, zero}, far{zero, zero};
    for (int row = -weights.radius; row <= weights.radius; ++row) near.add(rows[row] + i);
    far.add(rows[-outer] + i);
    far.add(rows[outer] + i);
    const Register pairs[4] = {
        Vec::zip_low_shorts(near.low, far.low), Vec::zip_high_shorts(near.low, far.low),
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
