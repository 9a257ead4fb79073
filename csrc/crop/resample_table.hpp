#pragma once

#include <array>
#include <vector>

#include "simd/kernels.hpp"

namespace fastdino {

// Where one output element comes from: `taps` inputs from `first` on, with coefficients that begin at
// `pairs` and are cut as Filter::low_bits says.
struct Window {
  int first;
  int taps;
  int pairs;
  int low_bits;
};

// The antialiased bicubic filter from `in_size` to `out_size` elements, with Pillow's coefficients bit for
// bit (src/libImaging/Resample.c, precompute_coeffs).
class ResampleTable {
 public:
  // Memory is kept from one call to the next, and so is the result if the sizes are the same. With
  // `wants_bytes` the low parts of coefficients are bytes where their sums can never leave a short.
  void compute(int in_size, int out_size, bool wants_bytes);

  const Window& window(int out) const { return windows_[static_cast<std::size_t>(out)]; }
  Filter filter(const Window& window) const {
    return {pairs_.data() + window.pairs, window.taps, window.low_bits};
  }

 private:
  void add_window(int first, int taps, bool wants_bytes);
  bool find_low_bytes(int low_bits);

  int in_size_ = 0, out_size_ = 0;
  std::vector<Window> windows_;
  std::vector<TapPair> pairs_;
  std::vector<double> weights_;
  std::vector<std::int32_t> coefficients_, low_bytes_;  // of one window, an even number
};

// Tables of the sizes that came up lately: crops come in few sizes, and a table costs as much as a tenth of
// its use.
class ResampleTables {
 public:
  explicit ResampleTables(bool wants_bytes) : wants_bytes_(wants_bytes) {}

  const ResampleTable& get(int in_size, int out_size) {
    ResampleTable& table = tables_[static_cast<std::size_t>(in_size * 31 + out_size) % tables_.size()];
    table.compute(in_size, out_size, wants_bytes_);
    return table;
  }

 private:
  const bool wants_bytes_;
  std::array<ResampleTable, 1021> tables_;
};

}  // namespace fastdino
