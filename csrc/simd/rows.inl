// Weighted sums of rows, the one shape that both resampling passes and both blurring directions have.
// Included once for each instruction set.
#pragma once

#include "simd/kernels.hpp"
#include "simd/registers.inl"

namespace fastdino {
namespace {

// The coefficients of a filter of known length, each over a whole register of its own: there multiplications
// find them at no cost.
template <int kPairs>
struct SpreadWeights {
  Register highs[kPairs], lows[kPairs];

  SpreadWeights(const TapPair* pairs, int) {
    for (int i = 0; i < kPairs; ++i) {
      highs[i] = Vec::every_int(pairs[i].high);
      lows[i] = Vec::every_int(pairs[i].low);
    }
  }
  int pairs() const { return kPairs; }
  Register high(int i) const { return highs[i]; }
  Register low(int i) const { return lows[i]; }
};

// The same for any length, spread out at every use.
struct PackedWeights {
  const TapPair* first;
  int count;

  int pairs() const { return count; }
  Register high(int i) const { return Vec::every_int(first[i].high); }
  Register low(int i) const { return Vec::every_int(first[i].low); }
};

// Half of the columns of a register, `kHalf` 0 or 1, in the two parts that zipping makes of them: with all
// four the sums would not stay in registers.
template <int kHalf, typename Weights>
inline void weigh_half(const std::uint8_t* row, std::ptrdiff_t stride, const Weights& weights,
                       bool ends_alone, Register results[2]) {
  const Register zero = Vec::zero(), half = Vec::every_int(1 << (kCoefficientBits - 1));
  Register high[2] = {zero, zero}, low[2] = {half, half};
  const auto add = [&](Register first, Register second, int i) {
    const Register zipped =
        kHalf == 0 ? Vec::zip_low_bytes(first, second) : Vec::zip_high_bytes(first, second);
    const Register pixels[2] = {Vec::zip_low_bytes(zipped, zero), Vec::zip_high_bytes(zipped, zero)};
    for (int part = 0; part < 2; ++part) {
      high[part] = Vec::add_ints(high[part], Vec::multiply_pairs(pixels[part], weights.high(i)));
      low[part] = Vec::add_ints(low[part], Vec::multiply_pairs(pixels[part], weights.low(i)));
    }
  };
  const int last = weights.pairs() - 1;
  for (int i = 0; i < last; ++i, row += 2 * stride) add(Vec::load(row), Vec::load(row + stride), i);
  // The partner of a last, single tap has coefficient 0; its row may lie outside the picture.
  add(Vec::load(row), ends_alone ? zero : Vec::load(row + stride), last);
  for (int part = 0; part < 2; ++part) {
    const Register sum = Vec::add_ints(Vec::shift_left<kLowBits>(high[part]), low[part]);
    results[part] = Vec::shift_right_signed<kCoefficientBits>(sum);
  }
}

template <typename Weights>
void weigh_rows_with(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const TapPair* pairs,
                     int taps, int count) {
  const Weights weights{pairs, (taps + 1) / 2};
  const bool ends_alone = taps % 2 != 0;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register results[4];
    weigh_half<0>(in + i, stride, weights, ends_alone, results);
    weigh_half<1>(in + i, stride, weights, ends_alone, results + 2);
    Vec::store(out + i, pack(results));
  }
}

void weigh_rows(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const TapPair* pairs,
                int taps, int count) {
  // Most crops of a photograph have four to fourteen taps; loops of known length take a third less time.
  switch ((taps + 1) / 2) {
    case 2:
      return weigh_rows_with<SpreadWeights<2>>(out, in, stride, pairs, taps, count);
    case 3:
      return weigh_rows_with<SpreadWeights<3>>(out, in, stride, pairs, taps, count);
    case 4:
      return weigh_rows_with<SpreadWeights<4>>(out, in, stride, pairs, taps, count);
    case 5:
      return weigh_rows_with<SpreadWeights<5>>(out, in, stride, pairs, taps, count);
    case 6:
      return weigh_rows_with<SpreadWeights<6>>(out, in, stride, pairs, taps, count);
    case 7:
      return weigh_rows_with<SpreadWeights<7>>(out, in, stride, pairs, taps, count);
    default:
      return weigh_rows_with<PackedWeights>(out, in, stride, pairs, taps, count);
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
