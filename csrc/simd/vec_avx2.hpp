#pragma once

#include <immintrin.h>

#include <cstdint>

// Thirty-two bytes, two lanes of sixteen: zips and packs stay within a lane, so that packing undoes zipping.
// The names and meanings are those of vec_generic.hpp.
namespace fastdino {
namespace {

struct Vec {
  using Register = __m256i;
  static constexpr int kBytes = 32;
  static constexpr bool kMultipliesBytes = true;

  static Register load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint8_t* to, Register v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  static Register zero() { return _mm256_setzero_si256(); }
  static Register pairs(std::int16_t first, std::int16_t second) {
    return _mm256_set1_epi32(
        static_cast<int>(static_cast<std::uint16_t>(first) |
                         static_cast<std::uint32_t>(static_cast<std::uint16_t>(second)) << 16));
  }
  static Register every_int(std::int32_t value) { return _mm256_set1_epi32(value); }
  static Register every_byte(std::uint8_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
  static Register add_bytes(Register a, Register b) { return _mm256_add_epi8(a, b); }
  static Register subtract_bytes(Register a, Register b) { return _mm256_sub_epi8(a, b); }
  static Register add_bytes_clipped(Register a, Register b) { return _mm256_adds_epu8(a, b); }
  static Register subtract_bytes_clipped(Register a, Register b) { return _mm256_subs_epu8(a, b); }
  static Register larger_bytes(Register a, Register b) { return _mm256_max_epu8(a, b); }
  static Register smaller_bytes(Register a, Register b) { return _mm256_min_epu8(a, b); }
  static Register equal_bytes(Register a, Register b) { return _mm256_cmpeq_epi8(a, b); }
  static Register choose(Register mask, Register yes, Register no) {
    return _mm256_blendv_epi8(no, yes, mask);
  }
  static Register sum_bytes(Register v) { return _mm256_sad_epu8(v, zero()); }
  static Register add_longs(Register a, Register b) { return _mm256_add_epi64(a, b); }
  static Register zip_low_bytes(Register a, Register b) { return _mm256_unpacklo_epi8(a, b); }
  static Register zip_high_bytes(Register a, Register b) { return _mm256_unpackhi_epi8(a, b); }
  static Register zip_low_shorts(Register a, Register b) { return _mm256_unpacklo_epi16(a, b); }
  static Register zip_high_shorts(Register a, Register b) { return _mm256_unpackhi_epi16(a, b); }
  static Register multiply_pairs(Register a, Register b) { return _mm256_madd_epi16(a, b); }
  // Shorts a0 * b0 + a1 * b1 ... of unsigned and of signed bytes; the sums must fit.
  static Register multiply_byte_pairs(Register a, Register b) { return _mm256_maddubs_epi16(a, b); }
  static Register multiply_shorts(Register a, Register b) { return _mm256_mullo_epi16(a, b); }
  static Register add_shorts(Register a, Register b) { return _mm256_add_epi16(a, b); }
  static Register add_ints(Register a, Register b) { return _mm256_add_epi32(a, b); }
  template <int kBits>
  static Register shift_left(Register v) {
    return _mm256_slli_epi32(v, kBits);
  }
  template <int kBits>
  static Register shift_right_signed(Register v) {
    return _mm256_srai_epi32(v, kBits);
  }
  template <int kBits>
  static Register shift_right_unsigned(Register v) {
    return _mm256_srli_epi32(v, kBits);
  }
  static Register pack_ints(Register a, Register b) { return _mm256_packs_epi32(a, b); }
  static Register pack_shorts(Register a, Register b) { return _mm256_packus_epi16(a, b); }

  // Floats in the places of ints.
  using Floats = __m256;
  static Floats every_float(float value) { return _mm256_set1_ps(value); }
  static Floats to_floats(Register ints) { return _mm256_cvtepi32_ps(ints); }
  static Register truncate(Floats v) { return _mm256_cvttps_epi32(v); }
  static Register round(Floats v) { return _mm256_cvtps_epi32(v); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  static Floats if_negative(Floats v, Floats yes, Floats no) { return _mm256_blendv_ps(no, yes, v); }
  static Register and_ints(Register a, Register b) { return _mm256_and_si256(a, b); }
};

}  // namespace
}  // namespace fastdino
