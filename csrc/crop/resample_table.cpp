#include "crop/resample_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace fastdino {
namespace {

constexpr double kSupport = 2.0;

// Keys' cubic with a = -0.5.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

std::int32_t fixed_point(double weight) {
  constexpr double one = 1 << kCoefficientBits;
  return static_cast<std::int32_t>(weight < 0 ? weight * one - 0.5 : weight * one + 0.5);
}

// Two shorts as one int, the first below the second.
std::int32_t side_by_side(std::int32_t first, std::int32_t second) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(first) & 0xFFFFU) |
                                   static_cast<std::uint32_t>(second) << 16);
}

TapPair short_parts(std::int32_t first, std::int32_t second) {
  constexpr std::int32_t low = (1 << kShortLowBits) - 1;
  return {side_by_side(first >> kShortLowBits, second >> kShortLowBits),
          side_by_side(first & low, second & low)};
}

TapPair byte_parts(const std::int32_t* coefficients, const std::int32_t* low, int low_bits) {
  const std::int32_t both = (low[0] & 0xFF) | (low[1] & 0xFF) << 8;
  return {side_by_side((coefficients[0] - low[0]) >> low_bits, (coefficients[1] - low[1]) >> low_bits),
          side_by_side(both, both)};
}

}  // namespace

void ResampleTable::compute(int in_size, int out_size, bool wants_bytes) {
  if (in_size == in_size_ && out_size == out_size_) return;
  in_size_ = 0;  // in case that memory runs out below
  windows_.clear();
  pairs_.clear();
  const double scale = static_cast<double>(in_size) / out_size;
  const double widening = std::max(scale, 1.0), support = kSupport * widening, narrowing = 1.0 / widening;
  weights_.resize(static_cast<std::size_t>(std::ceil(support)) * 2 + 1);
  for (int out = 0; out < out_size; ++out) {
    const double center = (out + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int taps = std::min(static_cast<int>(center + support + 0.5), in_size) - first;
    double total = 0.0;
    for (int tap = 0; tap < taps; ++tap) {
      const double weight = bicubic((tap + first - center + 0.5) * narrowing);
      weights_[static_cast<std::size_t>(tap)] = weight;
      total += weight;
    }
    if (total != 0.0) {
      for (int tap = 0; tap < taps; ++tap) weights_[static_cast<std::size_t>(tap)] /= total;
    }
    add_window(first, taps, wants_bytes);
  }
  in_size_ = in_size;
  out_size_ = out_size;
}

void ResampleTable::add_window(int first, int taps, bool wants_bytes) {
  coefficients_.assign(static_cast<std::size_t>(taps + taps % 2), 0);
  std::transform(weights_.begin(), weights_.begin() + taps, coefficients_.begin(), fixed_point);
  // Seven bits serve short filters, six those that shrink to less than half.
  int low_bits = kShortLowBits;
  if (wants_bytes && find_low_bytes(7)) {
    low_bits = 7;
  } else if (wants_bytes && find_low_bytes(6)) {
    low_bits = 6;
  }
  windows_.push_back({first, taps, static_cast<int>(pairs_.size()), low_bits});
  for (std::size_t tap = 0; tap < coefficients_.size(); tap += 2) {
    const std::int32_t* pair = &coefficients_[tap];
    pairs_.push_back(low_bits == kShortLowBits ? short_parts(pair[0], pair[1])
                                               : byte_parts(pair, &low_bytes_[tap], low_bits));
  }
}

// Cuts off the lowest bits as signed bytes, of which neither the positive nor the negative ones add up to
// more than 128: times 255, the largest pixel, both sums fit into a short. Every coefficient leaves the
// choice between a positive and a negative byte. False if that does not do, or if a high part is no short.
bool ResampleTable::find_low_bytes(int low_bits) {
  constexpr int most = 128;
  const std::int32_t unit = 1 << low_bits, half = unit / 2;
  int positive = 0, negative = 0;
  low_bytes_.clear();
  for (const std::int32_t coefficient : coefficients_) {
    const std::int32_t low = ((coefficient + half) & (unit - 1)) - half;
    low_bytes_.push_back(low);
    (low > 0 ? positive : negative) += std::abs(low);
  }
  while (positive > most || negative > most) {
    // The byte that is furthest from 0 grows least where it changes its sign.
    const bool falls = positive > negative;
    const auto [least, largest] = std::minmax_element(low_bytes_.begin(), low_bytes_.end());
    std::int32_t& low = falls ? *largest : *least;
    const std::int32_t other = low + (falls ? -unit : unit);
    (falls ? positive : negative) -= std::abs(low);
    (falls ? negative : positive) += std::abs(other);
    if ((falls ? negative : positive) > most || std::abs(other) >= most) return false;
    low = other;
  }
  for (std::size_t tap = 0; tap < coefficients_.size(); ++tap) {
    const std::int32_t high = (coefficients_[tap] - low_bytes_[tap]) >> low_bits;
    if (high != static_cast<std::int16_t>(high)) return false;
  }
  return true;
}

}  // namespace fastdino
