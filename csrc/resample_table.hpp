#pragma once

#include <vector>

#include "simd/kernels.hpp"

namespace fastdino {

// Where one output element comes from: `taps` inputs from `first` on, with coefficients that begin at `pairs`.
struct Window {
  int first;
  int taps;
  int pairs;
};

// The antialiased bicubic filter from `in_size` to `out_size` elements, with Pillow's coefficients bit for bit
// (src/libImaging/Resample.c, precompute_coeffs). Memory is kept from one call of `compute` to the next.
class ResampleTable {
 public:
  void compute(int in_size, int out_size);

  const Window& window(int out) const { return windows_[static_cast<std::size_t>(out)]; }
  const TapPair* pairs(const Window& window) const { return pairs_.data() + window.pairs; }

 private:
  void add_window(int first, int taps);

  std::vector<Window> windows_;
  std::vector<TapPair> pairs_;
  std::vector<double> weights_;
};

}  // namespace fastdino
