// Weighted sums of rows, the one shape that both resampling passes and both blurring directions have.
// Included once for each instruction set.
#pragma once

#include <type_traits>

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
    const Register sum = Vec::add_ints(Vec::shift_left<kShortLowBits>(high[part]), low[part]);
    results[part] = Vec::shift_right_signed<kCoefficientBits>(sum);
  }
}

template <typename Weights>
inline void weigh(const std::uint8_t* row, std::ptrdiff_t stride, const Weights& weights, bool ends_alone,
                  std::integral_constant<int, kShortLowBits>, Register results[4]) {
  weigh_half<0>(row, stride, weights, ends_alone, results);
  weigh_half<1>(row, stride, weights, ends_alone, results + 2);
}

// With low parts of a byte, whose sums fit into shorts: a quarter fewer multiplications. The rounding's half
// has no low bits and may join the high parts, and what of the low sums is below their last bit is lost
// anyway. `ByteVec` is Vec, named so that only those that have the multiplication need it.
template <typename Weights, int kLowBits, typename ByteVec = Vec>
inline void weigh(const std::uint8_t* row, std::ptrdiff_t stride, const Weights& weights, bool ends_alone,
                  std::integral_constant<int, kLowBits>, Register results[4]) {
  const Register zero = Vec::zero(), half = Vec::every_int(1 << (kCoefficientBits - 1 - kLowBits));
  Register high[4] = {half, half, half, half}, low[2] = {zero, zero};
  const auto add = [&](Register first, Register second, int i) {
    const Register zipped[2] = {Vec::zip_low_bytes(first, second), Vec::zip_high_bytes(first, second)};
    for (int part = 0; part < 2; ++part) {
      low[part] = Vec::add_shorts(low[part], ByteVec::multiply_byte_pairs(zipped[part], weights.low(i)));
    }
    for (int part = 0; part < 4; ++part) {
      const Register pixels = part % 2 == 0 ? Vec::zip_low_bytes(zipped[part / 2], zero)
                                            : Vec::zip_high_bytes(zipped[part / 2], zero);
      high[part] = Vec::add_ints(high[part], Vec::multiply_pairs(pixels, weights.high(i)));
    }
  };
  const int last = weights.pairs() - 1;
  for (int i = 0; i < last; ++i, row += 2 * stride) add(Vec::load(row), Vec::load(row + stride), i);
  add(Vec::load(row), ends_alone ? zero : Vec::load(row + stride), last);
  for (int part = 0; part < 4; ++part) {
    const Register raised =
        part % 2 == 0 ? Vec::zip_low_shorts(zero, low[part / 2]) : Vec::zip_high_shorts(zero, low[part / 2]);
    const Register sum = Vec::add_ints(high[part], Vec::shift_right_signed<16 + kLowBits>(raised));
    results[part] = Vec::shift_right_signed<kCoefficientBits - kLowBits>(sum);
  }
}

template <typename Weights, int kLowBits>
void weigh_rows_with(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const Filter& filter,
                     int count) {
  const Weights weights{filter.pairs, (filter.taps + 1) / 2};
  const bool ends_alone = filter.taps % 2 != 0;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register results[4];
    weigh(in + i, stride, weights, ends_alone, std::integral_constant<int, kLowBits>{}, results);
    Vec::store(out + i, pack(results));
  }
}

template <int kLowBits>
void weigh_rows_of(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const Filter& filter,
                   int count) {
  // Most crops of a photograph have four to fourteen taps; loops of known length take a third less time.
  switch ((filter.taps + 1) / 2) {
    case 2:
      return weigh_rows_with<SpreadWeights<2>, kLowBits>(out, in, stride, filter, count);
    case 3:
      return weigh_rows_with<SpreadWeights<3>, kLowBits>(out, in, stride, filter, count);
    case 4:
      return weigh_rows_with<SpreadWeights<4>, kLowBits>(out, in, stride, filter, count);
    case 5:
      return weigh_rows_with<SpreadWeights<5>, kLowBits>(out, in, stride, filter, count);
    case 6:
      return weigh_rows_with<SpreadWeights<6>, kLowBits>(out, in, stride, filter, count);
    case 7:
      return weigh_rows_with<SpreadWeights<7>, kLowBits>(out, in, stride, filter, count);
    default:
      return weigh_rows_with<PackedWeights, kLowBits>(out, in, stride, filter, count);
  }
}

void weigh_rows(std::uint8_t* out, const std::uint8_t* in, std::ptrdiff_t stride, const Filter& filter,
                int count) {
  if constexpr (Vec::kMultipliesBytes) {
    if (filter.low_bits == 6) return weigh_rows_of<6>(out, in, stride, filter, count);
    if (filter.low_bits == 7) return weigh_rows_of<7>(out, in, stride, filter, count);
  }
  weigh_rows_of<kShortLowBits>(out, in, stride, filter, count);
}

struct Shorts {
  Register low, high;

  explicit Shorts(const std::uint8_t* row)
      : low(Vec::zip_low_bytes(Vec::load(row), Vec::zero())),
        high(Vec::zip_high_bytes(Vec::load(row), Vec::zero())) {}

  void add(const std::uint8_t* row) {
    const Shorts more(row);
    low = Vec::add_shorts(low, more.low);
    high = Vec::add_shorts(high, more.high);
  }
};

void box_rows(std::uint8_t* out, const std::uint8_t* const* rows, BoxWeights weights, int count) {
  const Register half = Vec::every_int(1 << 23);
  const auto upper = [](std::uint32_t weight) { return static_cast<std::int16_t>(weight >> kShortLowBits); };
  const auto lower = [](std::uint32_t weight) {
    return static_cast<std::int16_t>(weight & ((1 << kShortLowBits) - 1));
  };
  const Register high_weights = Vec::pairs(upper(weights.near), upper(weights.far));
  const Register low_weights = Vec::pairs(lower(weights.near), lower(weights.far));
  const int outer = weights.radius + 1;
  for (int i = 0; i < count; i += Vec::kBytes) {
    Shorts near(rows[0] + i), far(rows[-outer] + i);
    for (int d = 1; d <= weights.radius; ++d) {
      near.add(rows[-d] + i);
      near.add(rows[d] + i);
    }
    far.add(rows[outer] + i);
    const Register pairs[4] = {
        Vec::zip_low_shorts(near.low, far.low), Vec::zip_high_shorts(near.low, far.low),
        Vec::zip_low_shorts(near.high, far.high), Vec::zip_high_shorts(near.high, far.high)};
    Register sums[4];
    for (int part = 0; part < 4; ++part) {
      const Register high = Vec::shift_left<kShortLowBits>(Vec::multiply_pairs(pairs[part], high_weights));
      const Register low = Vec::add_ints(Vec::multiply_pairs(pairs[part], low_weights), half);
      sums[part] = Vec::shift_right_unsigned<24>(Vec::add_ints(high, low));
    }
    Vec::store(out + i, pack(sums));
  }
}

}  // namespace
}  // namespace fastdino
