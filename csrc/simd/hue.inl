// The hue shift: RGB -> HSV of bytes, h + shift modulo 256, -> RGB, as Pillow computes it (src/libImaging/Convert.c,
// rgb2hsv and hsv2rgb, after colorsys), in single precision where Pillow mixes it with double: a test over all 2^24
// colours shows that the bytes are the same.
#pragma once

#include "simd/color.inl"

namespace fastdino {
namespace {

// floor(share * 255) as a float, without rounding the product first.
inline Floats floor_of_255(Floats share) {
  const Floats floor = Vec::to_floats(Vec::truncate(Vec::multiply(share, Vec::every_float(255.0F))));
  const Floats above = Vec::subtract(Vec::subtract(Vec::multiply(share, Vec::every_float(256.0F)), floor), share);
  return Vec::if_negative(above, Vec::subtract(floor, Vec::every_float(1.0F)), floor);
}

inline Floats within_unit(Floats v) { return Vec::larger(Vec::smaller(v, Vec::every_float(1.0F)), Vec::every_float(0.0F)); }

struct Hsv {
  Floats h, s, v;  // integers 0 .. 255
};

inline Hsv to_hsv(Floats r, Floats g, Floats b) {
  const Floats zero = Vec::every_float(0.0F), one = Vec::every_float(1.0F);
  const Floats v = Vec::larger(r, Vec::larger(g, b));
  const Floats smallest = Vec::smaller(r, Vec::smaller(g, b));
  const Floats range = Vec::subtract(v, smallest);
  // A grey pixel has saturation 0, and any hue gives it back unchanged: the divisor may be anything.
  const Floats divisor = Vec::larger(range, one);
  const Floats place = Vec::if_equal(r, v, zero, Vec::if_equal(g, v, Vec::every_float(2.0F), Vec::every_float(4.0F)));
  const Floats before = Vec::if_equal(r, v, b, Vec::if_equal(g, v, r, g));
  // Pillow adds place + (v - before) / range - (v - after) / range; the smallest channel's quotient is 1.
  const Floats middle = Vec::larger(Vec::smaller(r, g), Vec::smaller(Vec::larger(r, g), b));
  const Floats other = Vec::divide(Vec::subtract(v, middle), divisor);
  const Floats up = Vec::subtract(Vec::add(place, one), other), down = Vec::add(Vec::subtract(place, one), other);
  const Floats sixths = Vec::if_equal(before, smallest, up, down);
  const Floats signed_turns = Vec::divide(sixths, Vec::every_float(6.0F));
  const Floats turns = Vec::if_negative(signed_turns, Vec::add(signed_turns, one), signed_turns);
  return {floor_of_255(turns), floor_of_255(Vec::divide(range, Vec::larger(v, one))), v};
}

// v * (1 - s * lack), rounded.
inline Register channel(Floats v, Floats share, Floats lack) {
  const Floats gone = Vec::multiply(v, Vec::multiply(share, within_unit(lack)));
  return Vec::truncate(Vec::add(Vec::subtract(v, gone), Vec::every_float(0.5F)));
}

void shift_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, int shift, int count) {
  const Register step = Vec::every_int(shift), byte = Vec::every_int(255);
  const Floats by_255 = Vec::every_float(1.0F / 255.0F), one = Vec::every_float(1.0F);
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register red[4], green[4], blue[4];
    widen(Vec::load(r + i), red);
    widen(Vec::load(g + i), green);
    widen(Vec::load(b + i), blue);
    for (int part = 0; part < 4; ++part) {
      const Hsv hsv = to_hsv(Vec::to_floats(red[part]), Vec::to_floats(green[part]), Vec::to_floats(blue[part]));
      const Floats h = Vec::to_floats(Vec::and_ints(Vec::add_ints(Vec::truncate(hsv.h), step), byte));
      // Six times around the circle: whole sixths and what is left of 255.
      const Floats sixfold = Vec::multiply(h, Vec::every_float(6.0F));
      const Floats sixth = Vec::to_floats(Vec::truncate(Vec::multiply(Vec::add(sixfold, Vec::every_float(0.5F)), by_255)));
      const Floats left = Vec::multiply(Vec::subtract(sixfold, Vec::multiply(sixth, Vec::every_float(255.0F))), by_255);
      const Floats share = Vec::multiply(hsv.s, by_255);
      // How much a channel lacks of the largest one falls from 1 to 0, stays 0 for two sixths, and rises.
      const auto lack = [&](float middle) {
        const Floats away = Vec::subtract(sixth, Vec::every_float(middle));
        const Floats rising = Vec::add(Vec::subtract(away, one), left);
        const Floats falling = Vec::subtract(Vec::subtract(Vec::every_float(-1.0F), away), left);
        return Vec::larger(rising, falling);
      };
      const Floats red_lack = Vec::subtract(one, lack(3.0F));
      red[part] = channel(hsv.v, share, red_lack);
      green[part] = channel(hsv.v, share, lack(2.0F));
      blue[part] = channel(hsv.v, share, lack(4.0F));
    }
    Vec::store(r + i, pack(red));
    Vec::store(g + i, pack(green));
    Vec::store(b + i, pack(blue));
  }
}

}  // namespace
}  // namespace fastdino
