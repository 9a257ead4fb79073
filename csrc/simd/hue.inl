// The hue shift: RGB -> HSV of bytes, h + shift modulo 256, -> RGB, as Pillow computes it
// (src/libImaging/Convert.c, rgb2hsv and hsv2rgb, after colorsys). Pillow mixes single and double precision;
// a test over all 2^24 colours shows that the bytes are the same. Included once for each instruction set.
#pragma once

#include "simd/color.inl"

namespace fastdino {
namespace {

// Signed shorts, given as their low and high bytes, times 2^16, in the order in which widening leaves ints.
inline void widen_shorts(Register low_bytes, Register high_bytes, Register ints[4]) {
  const Register zero = Vec::zero();
  const Register low = Vec::zip_low_bytes(low_bytes, high_bytes),
                 high = Vec::zip_high_bytes(low_bytes, high_bytes);
  ints[0] = Vec::zip_low_shorts(zero, low);
  ints[1] = Vec::zip_high_shorts(zero, low);
  ints[2] = Vec::zip_low_shorts(zero, high);
  ints[3] = Vec::zip_high_shorts(zero, high);
}

// The hue, in turns, is (corner + gap / range) / 6: the odd corners of the circle are where two channels are
// the largest one or two are the smallest, and `gap`, negative before a corner, how far the middle channel is
// from the largest.
struct Corners {
  Register corner, corner_sign, gap, gap_sign;
};

inline Corners corners(Register r, Register g, Register b, Register v, Register least, Register gap) {
  const Register zero = Vec::zero(), is_red = Vec::equal_bytes(r, v), is_green = Vec::equal_bytes(g, v);
  const Register behind = Vec::choose(is_red, b, Vec::choose(is_green, r, g));
  const Register before_corner = Vec::equal_bytes(behind, least);
  const Register next =
      Vec::choose(is_red, Vec::every_byte(1), Vec::choose(is_green, Vec::every_byte(3), Vec::every_byte(5)));
  const Register corner = Vec::choose(before_corner, next, Vec::subtract_bytes(next, Vec::every_byte(2)));
  return {corner, Vec::equal_bytes(corner, Vec::every_byte(255)),
          Vec::choose(before_corner, Vec::subtract_bytes(zero, gap), gap),
          Vec::choose(Vec::equal_bytes(gap, zero), zero, before_corner)};
}

// Pillow's h and s. A grey pixel has saturation 0, and any hue gives it back unchanged.
inline void to_hue_and_saturation(Register r, Register g, Register b, Register v, Register& hue,
                                  Register& saturation) {
  const Register low = Vec::smaller_bytes(r, g), high = Vec::larger_bytes(r, g);
  const Register least = Vec::smaller_bytes(low, b);
  const Register middle = Vec::larger_bytes(low, Vec::smaller_bytes(high, b));
  const Corners at = corners(r, g, b, v, least, Vec::subtract_bytes(v, middle));
  Register corner[4], gap[4], range[4], largest[4];
  widen_shorts(at.corner, at.corner_sign, corner);
  widen_shorts(at.gap, at.gap_sign, gap);
  widen(Vec::subtract_bytes(v, least), range);
  widen(Vec::larger_bytes(v, Vec::every_byte(1)), largest);
  const Floats one = Vec::every_float(1.0F), most = Vec::every_float(255.0F);
  Register hues[4], saturations[4];
  for (int part = 0; part < 4; ++part) {
    const Floats spread = Vec::to_floats(range[part]);
    saturations[part] =
        Vec::truncate(Vec::multiply(Vec::divide(spread, Vec::to_floats(largest[part])), most));
    const Floats away = Vec::divide(Vec::to_floats(gap[part]), Vec::larger(spread, one));
    const Floats turns =
        Vec::divide(Vec::add(Vec::to_floats(corner[part]), away), Vec::every_float(6.0F * 65536.0F));
    const Floats positive = Vec::if_negative(turns, Vec::add(turns, one), turns);
    hues[part] = Vec::truncate(Vec::multiply(positive, most));
  }
  hue = pack(hues);
  saturation = pack(saturations);
}

// What of the largest channel red, green and blue lack at full saturation, out of 85: nothing in two sixths
// of the circle, everything in the two opposite ones, and in between it falls or rises.
struct Lacks {
  Register red, green, blue;
};

inline Lacks lacks(Register hue) {
  const Register one = Vec::every_byte(1), all = Vec::every_byte(85);
  const Register doubled = Vec::add_bytes_clipped(hue, hue);
  const auto twice_less_one = [&](Register x) {
    return Vec::subtract_bytes_clipped(Vec::add_bytes_clipped(x, x), one);
  };
  const Register until_third = Vec::subtract_bytes_clipped(doubled, all);
  const Register from_half = twice_less_one(Vec::subtract_bytes_clipped(Vec::every_byte(213), hue));
  const Register after_half = twice_less_one(Vec::subtract_bytes_clipped(hue, Vec::every_byte(127)));
  const Register at_end = twice_less_one(Vec::subtract_bytes_clipped(hue, Vec::every_byte(212)));
  const Register at_start = Vec::subtract_bytes_clipped(all, doubled);
  const Register until_half = Vec::subtract_bytes_clipped(Vec::every_byte(255), doubled);
  return {Vec::smaller_bytes(Vec::smaller_bytes(until_third, from_half), all),
          Vec::larger_bytes(Vec::smaller_bytes(after_half, all), at_start),
          Vec::larger_bytes(Vec::smaller_bytes(until_half, all), at_end)};
}

// v - v * saturation / 255 * lack / 85, rounded; `strength` is v * saturation / (255 * 85).
inline Register channel(Register v, const Floats strength[4], Register lack) {
  Register parts[4];
  widen(lack, parts);
  for (int part = 0; part < 4; ++part) {
    parts[part] = Vec::round(Vec::multiply(strength[part], Vec::to_floats(parts[part])));
  }
  return Vec::subtract_bytes(v, pack(parts));
}

void shift_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, int by, int count) {
  const Register zero = Vec::zero(), shift = Vec::every_byte(static_cast<std::uint8_t>(by));
  const Floats scale = Vec::every_float(1.0F / (255.0F * 85.0F));
  for (int i = 0; i < count; i += Vec::kBytes) {
    const Register red = Vec::load(r + i), green = Vec::load(g + i), blue = Vec::load(b + i);
    const Register v = Vec::larger_bytes(Vec::larger_bytes(red, green), blue);
    Register hue, saturation;
    to_hue_and_saturation(red, green, blue, v, hue, saturation);
    const Register low =
        Vec::multiply_shorts(Vec::zip_low_bytes(v, zero), Vec::zip_low_bytes(saturation, zero));
    const Register high =
        Vec::multiply_shorts(Vec::zip_high_bytes(v, zero), Vec::zip_high_bytes(saturation, zero));
    const Register products[4] = {Vec::zip_low_shorts(low, zero), Vec::zip_high_shorts(low, zero),
                                  Vec::zip_low_shorts(high, zero), Vec::zip_high_shorts(high, zero)};
    Floats strength[4];
    for (int part = 0; part < 4; ++part) {
      strength[part] = Vec::multiply(Vec::to_floats(products[part]), scale);
    }
    const Lacks lack = lacks(Vec::add_bytes(hue, shift));
    Vec::store(r + i, channel(v, strength, lack.red));
    Vec::store(g + i, channel(v, strength, lack.green));
    Vec::store(b + i, channel(v, strength, lack.blue));
  }
}

}  // namespace
}  // namespace fastdino
