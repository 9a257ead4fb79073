#pragma once

#include <emmintrin.h>

#include <cstdint>

// Sixteen bytes. The names and meanings are those of vec_generic.hpp.
namespace fastdino {
namespace {

struct Vec {
  using Register = __m128i;
  static constexpr int kBytes = 16;
  static constexpr bool kMultipliesBytes = false;

  static Register load(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static void store(std::uint8_t* to, Register v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v); }
  static Register zero() { return _mm_setzero_si128(); }
  static Register pairs(std::int16_t first, std::int16_t second) {
    return _mm_set1_epi32(
        static_cast<int>(static_cast<std::uint16_t>(first) |
                         static_cast<std::uint32_t>(static_cast<std::uint16_t>(second)) << 16));
  }
  static Register every_int(std::int32_t value) { return _mm_set1_epi32(value); }
  static Register every_byte(std::uint8_t value) { return _mm_set1_epi8(static_cast<char>(value)); }
  static Register add_bytes(Register a, Register b) { return _mm_add_epi8(a, b); }
  static Register subtract_bytes(Register a, Register b) { return _mm_sub_epi8(a, b); }
  static Register add_bytes_clipped(Register a, Register b) { return _mm_adds_epu8(a, b); }
  static Register subtract_bytes_clipped(Register a, Register b) { return _mm_subs_epu8(a, b); }
  static Register larger_bytes(Register a, Register b) { return _mm_max_epu8(a, b); }
  static Register smaller_bytes(Register a, Register b) { return _mm_min_epu8(a, b); }
  static Register equal_bytes(Register a, Register b) { return _mm_cmpeq_epi8(a, b); }
  static Register choose(Register mask, Register yes, Register no) {
    return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
  }
  static Register sum_bytes(Register v) { return _mm_sad_epu8(v, zero()); }
  static Register add_longs(Register a, Register b) { return _mm_add_epi64(a, b); }
  static Register zip_low_bytes(Register a, Register b) { return _mm_unpacklo_epi8(a, b); }
  static Register zip_high_bytes(Register a, Register b) { return _mm_unpackhi_epi8(a, b); }
  static Register zip_low_shorts(Register a, Register b) { return _mm_unpacklo_epi16(a, b); }
  static Register zip_high_shorts(Register a, Register b) { return _mm_unpackhi_epi16(a, b); }
  static Register multiply_pairs(Register a, Register b) { return _mm_madd_epi16(a, b); }
  static Register multiply_shorts(Register a, Register b) { return _mm_mullo_epi16(a, b); }
  static Register add_shorts(Register a, Register b) { return _mm_add_epi16(a, b); }
  static Register add_ints(Register a, Register b) { return _mm_add_epi32(a, b); }
  template <int kBits>
  static Register shift_left(Register v) {
    return _mm_slli_epi32(v, kBits);
  }
  template <int kBits>
  static Register shift_right_signed(Register v) {
    return _mm_srai_epi32(v, kBits);
  }
  template <int kBits>
  static Register shift_right_unsigned(Register v) {
    return _mm_srli_epi32(v, kBits);
  }
  static Register pack_ints(Register a, Register b) { return _mm_packs_epi32(a, b); }
  static Register pack_shorts(Register a, Register b) { return _mm_packus_epi16(a, b); }

  // Floats in the places of ints.
  using Floats = __m128;
  static Floats every_float(float value) { return _mm_set1_ps(value); }
  static Floats to_floats(Register ints) { return _mm_cvtepi32_ps(ints); }
  static Register truncate(Floats v) { return _mm_cvttps_epi32(v); }
  static Register round(Floats v) { return _mm_cvtps_epi32(v); }
  static Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm_mul_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm_div_ps(a, b); }
  static Floats larger(Floats a, Floats b) { return _mm_max_ps(a, b); }
  static Floats if_negative(Floats v, Floats yes, Floats no) {
    const __m128 negative = _mm_cmplt_ps(v, _mm_setzero_ps());
    return _mm_or_ps(_mm_and_ps(negative, yes), _mm_andnot_ps(negative, no));
  }
  static Register and_ints(Register a, Register b) { return _mm_and_si128(a, b); }
};

}  // namespace
}  // namespace fastdino
