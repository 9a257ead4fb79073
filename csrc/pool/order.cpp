#include "pool/order.hpp"

namespace fastdino {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9U;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBU;
  return x ^ x >> 31;
}

int bit_length(std::uint64_t x) {
  int bits = 0;
  for (; x != 0; x >>= 1) ++bits;
  return bits;
}

}  // namespace

EpochOrder::EpochOrder(std::uint64_t seed, std::uint64_t epoch, std::uint64_t length) : length_(length) {
  const std::uint64_t stream = mix(mix(seed + kGolden) + epoch + kGolden);
  for (std::size_t i = 0; i < keys_.size(); ++i) keys_[i] = mix(stream + (i + 1) * kGolden);
  const int needed = bit_length(length - 1), bits = needed < 2 ? 2 : needed;
  low_bits_ = bits / 2;
  low_mask_ = (std::uint64_t{1} << low_bits_) - 1;
  high_mask_ = (std::uint64_t{1} << (bits - low_bits_)) - 1;
}

std::uint64_t EpochOrder::operator[](std::uint64_t position) const {
  std::uint64_t index = permute(position);
  while (index >= length_) index = permute(index);
  return index;
}

std::uint64_t EpochOrder::permute(std::uint64_t value) const {
  std::uint64_t low = value & low_mask_, high = value >> low_bits_;
  for (std::size_t i = 0; i < keys_.size(); i += 2) {
    high ^= mix(low + keys_[i]) & high_mask_;
    low ^= mix(high + keys_[i + 1]) & low_mask_;
  }
  return high << low_bits_ | low;
}

}  // namespace fastdino
