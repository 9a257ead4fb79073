// Stands in for the compiler's header where csrc/simd/avx512.cpp is built to run on any machine: what it uses
// of AVX-512, as Intel's guide to the intrinsics defines it, one element at a time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct alignas(64) __m512i {
  std::uint8_t bytes[64];
};
struct alignas(64) __m512 {
  float items[16];
};
using __mmask16 = std::uint16_t;
using __mmask64 = std::uint64_t;
enum { _CMP_LT_OQ };

namespace emulated {

constexpr int kLanes = 4, kLaneBytes = 16;

template <typename Item>
Item get(const __m512i& v, int i) {
  Item item;
  std::memcpy(&item, v.bytes + static_cast<std::size_t>(i) * sizeof item, sizeof item);
  return item;
}

template <typename Item, typename Function>
__m512i make(Function item_at) {
  __m512i v;
  for (int i = 0; i < static_cast<int>(64 / sizeof(Item)); ++i) {
    const Item item = static_cast<Item>(item_at(i));
    std::memcpy(v.bytes + static_cast<std::size_t>(i) * sizeof item, &item, sizeof item);
  }
  return v;
}

template <typename Function>
__m512 make_floats(Function item_at) {
  __m512 v;
  for (int i = 0; i < 16; ++i) v.items[i] = item_at(i);
  return v;
}

// Lane by lane, a and b in turn, from the half that begins `half` of a lane in.
template <typename Item>
__m512i unpack(const __m512i& a, const __m512i& b, int half) {
  constexpr int in_lane = kLaneBytes / sizeof(Item);
  return make<Item>([&](int i) {
    const int place = i / in_lane * in_lane + half * in_lane / 2 + i % in_lane / 2;
    return get<Item>(i % 2 ? b : a, place);
  });
}

// Lane by lane, all of a then all of b, clipped to what a Narrow holds.
template <typename Wide, typename Narrow>
__m512i pack(const __m512i& a, const __m512i& b, Wide least, Wide most) {
  constexpr int in_lane = kLaneBytes / sizeof(Wide);
  return make<Narrow>([&](int i) {
    const int lane = i / (2 * in_lane), place = i % (2 * in_lane);
    const Wide item = get<Wide>(place < in_lane ? a : b, lane * in_lane + place % in_lane);
    return static_cast<Narrow>(item < least ? least : item > most ? most : item);
  });
}

// The sum modulo 2^bits, where the signed one would be undefined.
template <typename Item>
__m512i add(const __m512i& a, const __m512i& b) {
  return make<Item>([&](int i) { return static_cast<Item>(get<Item>(a, i) + get<Item>(b, i)); });
}

template <typename Function>
__m512i of_bytes(const __m512i& a, const __m512i& b, Function function) {
  return make<std::uint8_t>([&](int i) { return function(a.bytes[i], b.bytes[i]); });
}

}  // namespace emulated

inline __m512i _mm512_loadu_si512(const void* from) {
  __m512i v;
  std::memcpy(v.bytes, from, sizeof v.bytes);
  return v;
}
inline void _mm512_storeu_si512(void* to, __m512i v) {
  std::memcpy(to, v.bytes, sizeof v.bytes);
}
inline __m512i _mm512_setzero_si512() {
  return {};
}
inline __m512i _mm512_set1_epi32(std::int32_t value) {
  return emulated::make<std::int32_t>([=](int) { return value; });
}
inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return emulated::make<std::uint8_t>(
      [&](int i) { return emulated::get<std::uint8_t>(a, i) & emulated::get<std::uint8_t>(b, i); });
}
inline __m512i _mm512_set1_epi8(char value) {
  return emulated::make<char>([=](int) { return value; });
}
inline __m512i _mm512_add_epi8(__m512i a, __m512i b) {
  return emulated::add<std::uint8_t>(a, b);
}
inline __m512i _mm512_sub_epi8(__m512i a, __m512i b) {
  return emulated::of_bytes(a, b, [](int x, int y) { return x - y; });
}
inline __m512i _mm512_adds_epu8(__m512i a, __m512i b) {
  return emulated::of_bytes(a, b, [](int x, int y) { return x + y > 255 ? 255 : x + y; });
}
inline __m512i _mm512_subs_epu8(__m512i a, __m512i b) {
  return emulated::of_bytes(a, b, [](int x, int y) { return x > y ? x - y : 0; });
}
inline __m512i _mm512_max_epu8(__m512i a, __m512i b) {
  return emulated::of_bytes(a, b, [](int x, int y) { return x > y ? x : y; });
}
inline __m512i _mm512_min_epu8(__m512i a, __m512i b) {
  return emulated::of_bytes(a, b, [](int x, int y) { return x < y ? x : y; });
}
inline __mmask64 _mm512_cmpeq_epi8_mask(__m512i a, __m512i b) {
  __mmask64 mask = 0;
  for (int i = 0; i < 64; ++i) mask |= __mmask64{a.bytes[i] == b.bytes[i]} << i;
  return mask;
}
inline __mmask64 _mm512_movepi8_mask(__m512i v) {
  __mmask64 mask = 0;
  for (int i = 0; i < 64; ++i) mask |= __mmask64{v.bytes[i] >> 7 != 0} << i;
  return mask;
}
inline __m512i _mm512_movm_epi8(__mmask64 mask) {
  return emulated::make<std::uint8_t>([&](int i) { return mask >> i & 1 ? 255 : 0; });
}
inline __m512i _mm512_mask_blend_epi8(__mmask64 mask, __m512i unset, __m512i set) {
  return emulated::make<std::uint8_t>([&](int i) { return (mask >> i & 1 ? set : unset).bytes[i]; });
}
inline __m512i _mm512_sad_epu8(__m512i a, __m512i b) {
  return emulated::make<std::uint64_t>([&](int i) {
    int total = 0;
    for (int place = 8 * i; place < 8 * i + 8; ++place) {
      total +=
          a.bytes[place] > b.bytes[place] ? a.bytes[place] - b.bytes[place] : b.bytes[place] - a.bytes[place];
    }
    return total;
  });
}
inline __m512i _mm512_add_epi64(__m512i a, __m512i b) {
  return emulated::add<std::uint64_t>(a, b);
}
inline __m512i _mm512_mullo_epi16(__m512i a, __m512i b) {
  return emulated::make<std::uint16_t>([&](int i) {
    return std::uint32_t{emulated::get<std::uint16_t>(a, i)} * emulated::get<std::uint16_t>(b, i);
  });
}
inline __m512i _mm512_unpacklo_epi8(__m512i a, __m512i b) {
  return emulated::unpack<std::uint8_t>(a, b, 0);
}
inline __m512i _mm512_unpackhi_epi8(__m512i a, __m512i b) {
  return emulated::unpack<std::uint8_t>(a, b, 1);
}
inline __m512i _mm512_unpacklo_epi16(__m512i a, __m512i b) {
  return emulated::unpack<std::int16_t>(a, b, 0);
}
inline __m512i _mm512_unpackhi_epi16(__m512i a, __m512i b) {
  return emulated::unpack<std::int16_t>(a, b, 1);
}
inline __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  return emulated::make<std::int32_t>([&](int i) {
    const auto product = [&](int at) {
      return std::int64_t{emulated::get<std::int16_t>(a, at)} * emulated::get<std::int16_t>(b, at);
    };
    return product(2 * i) + product(2 * i + 1);
  });
}
inline __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
  return emulated::make<std::int16_t>([&](int i) {
    const auto product = [&](int at) { return a.bytes[at] * static_cast<std::int8_t>(b.bytes[at]); };
    const int sum = product(2 * i) + product(2 * i + 1);
    return sum < -32768 ? -32768 : sum > 32767 ? 32767 : sum;
  });
}
inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
  return emulated::add<std::uint16_t>(a, b);
}
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return emulated::add<std::uint32_t>(a, b);
}
inline __m512i _mm512_slli_epi32(__m512i v, unsigned bits) {
  return emulated::make<std::uint32_t>([&](int i) { return emulated::get<std::uint32_t>(v, i) << bits; });
}
inline __m512i _mm512_srai_epi32(__m512i v, unsigned bits) {
  return emulated::make<std::int32_t>([&](int i) { return emulated::get<std::int32_t>(v, i) >> bits; });
}
inline __m512i _mm512_srli_epi32(__m512i v, unsigned bits) {
  return emulated::make<std::uint32_t>([&](int i) { return emulated::get<std::uint32_t>(v, i) >> bits; });
}
inline __m512i _mm512_packs_epi32(__m512i a, __m512i b) {
  return emulated::pack<std::int32_t, std::int16_t>(a, b, -32768, 32767);
}
inline __m512i _mm512_packus_epi16(__m512i a, __m512i b) {
  return emulated::pack<std::int16_t, std::uint8_t>(a, b, 0, 255);
}

inline __m512 _mm512_setzero_ps() {
  return {};
}
inline __m512 _mm512_set1_ps(float value) {
  return emulated::make_floats([=](int) { return value; });
}
inline __m512 _mm512_cvtepi32_ps(__m512i v) {
  return emulated::make_floats([&](int i) { return static_cast<float>(emulated::get<std::int32_t>(v, i)); });
}
inline __m512i _mm512_cvttps_epi32(__m512 v) {
  return emulated::make<std::int32_t>([&](int i) { return static_cast<std::int32_t>(v.items[i]); });
}
inline __m512i _mm512_cvtps_epi32(__m512 v) {
  return emulated::make<std::int32_t>([&](int i) { return std::nearbyint(v.items[i]); });
}
inline __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return emulated::make_floats([&](int i) { return a.items[i] + b.items[i]; });
}
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return emulated::make_floats([&](int i) { return a.items[i] - b.items[i]; });
}
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return emulated::make_floats([&](int i) { return a.items[i] * b.items[i]; });
}
inline __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return emulated::make_floats([&](int i) { return a.items[i] / b.items[i]; });
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return emulated::make_floats([&](int i) { return a.items[i] > b.items[i] ? a.items[i] : b.items[i]; });
}
inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int) {
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= unsigned{a.items[i] < b.items[i]} << i;
  return static_cast<__mmask16>(mask);
}
inline __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 unset, __m512 set) {
  return emulated::make_floats([&](int i) { return mask >> i & 1 ? set.items[i] : unset.items[i]; });
}
