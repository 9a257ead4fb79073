#include "crop/resample_table.hpp"

#include <algorithm>
#include <cmath>

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

TapPair pair_of(std::int32_t first, std::int32_t second) {
  constexpr std::int32_t low = (1 << kLowBits) - 1;
  return {side_by_side(first >> kLowBits, second >> kLowBits), side_by_side(first & low, second & low)};
}

}  // namespace

void ResampleTable::compute(int in_size, int out_size) {
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
    add_window(first, taps);
  }
  in_size_ = in_size;
  out_size_ = out_size;
}

void ResampleTable::add_window(int first, int taps) {
  windows_.push_back({first, taps, static_cast<int>(pairs_.size())});
  for (int tap = 0; tap < taps; tap += 2) {
    const std::int32_t first = fixed_point(weights_[static_cast<std::size_t>(tap)]);
    const std::int32_t second = tap + 1 < taps ? fixed_point(weights_[static_cast<std::size_t>(tap) + 1]) : 0;
    pairs_.push_back(pair_of(first, second));
  }
}

}  // namespace fastdino
