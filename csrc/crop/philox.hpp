#pragma once

#include <array>
#include <cstdint>

namespace fastdino {

// Philox4x64-10 (Salmon et al. 2011): four words that are a pure function of key and counter.
inline std::array<std::uint64_t, 4> philox(std::array<std::uint64_t, 2> key,
                                           std::array<std::uint64_t, 4> counter) {
  __extension__ using Wide = unsigned __int128;
  for (int round = 0; round < 10; ++round) {
    const Wide first = static_cast<Wide>(0xD2E7470EE14C6C93U) * counter[0];
    const Wide second = static_cast<Wide>(0xCA5A826395121157U) * counter[2];
    counter = {
        static_cast<std::uint64_t>(second >> 64) ^ counter[1] ^ key[0], static_cast<std::uint64_t>(second),
        static_cast<std::uint64_t>(first >> 64) ^ counter[3] ^ key[1], static_cast<std::uint64_t>(first)};
    key[0] += 0x9E3779B97F4A7C15U;
    key[1] += 0xBB67AE8584CAA73BU;
  }
  return counter;
}

}  // namespace fastdino
