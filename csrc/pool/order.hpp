#pragma once

#include <array>
#include <cstdint>

namespace fastdino {

// The permutation of 0 .. length - 1 that (seed, epoch) selects, computed on the fly; its specification
// stands in fastdino/data/order.py.
class EpochOrder {
 public:
  EpochOrder(std::uint64_t seed, std::uint64_t epoch, std::uint64_t length);
  std::uint64_t operator[](std::uint64_t position) const;

 private:
  std::uint64_t permute(std::uint64_t value) const;

  std::uint64_t length_;
  int low_bits_;
  std::uint64_t low_mask_, high_mask_;
  std::array<std::uint64_t, 8> keys_;
};

}  // namespace fastdino
