// The hue shift: RGB -> HSV of bytes, h + shift modulo 256, -> RGB, as Pillow computes it
// (src/libImaging/Convert.c, rgb2hsv and hsv2rgb, after colorsys), in single precision where Pillow mixes it
// with double: a test over all 2^24 colours shows that the bytes are the same. Included once for each
// instruction set.
//
// It goes in short steps over four registers each, because one pixel's chain of dependent operations is so
// long that a processor would find nothing to do beside it.
#pragma once

#include "simd/color.inl"

namespace fastdino {
namespace {

// floor(share * 255) as a float, without rounding the product first.
inline Floats floor_of_255(Floats share) {
  const Floats floor = Vec::to_floats(Vec::truncate(Vec::multiply(share, Vec::every_float(255.0F))));
  const Floats above =
      Vec::subtract(Vec::subtract(Vec::multiply(share, Vec::every_float(256.0F)), floor), share);
  return Vec::if_negative(above, Vec::subtract(floor, Vec::every_float(1.0F)), floor);
}

inline Floats within_unit(Floats v) {
  return Vec::larger(Vec::smaller(v, Vec::every_float(1.0F)), Vec::every_float(0.0F));
}

// Where a pixel stands on the colour circle, in turns, and its saturation, 0 to 1.
inline void to_turns(Floats r, Floats g, Floats b, Floats& turns, Floats& saturation, Floats& v) {
  const Floats one = Vec::every_float(1.0F);
  const Floats red_green = Vec::larger(r, g), low_red_green = Vec::smaller(r, g);
  const Floats smallest = Vec::smaller(low_red_green, b);
  v = Vec::larger(red_green, b);
  const Floats range = Vec::subtract(v, smallest);
  saturation = Vec::divide(range, Vec::larger(v, one));
  // Pillow adds place + (v - before) / range - (v - after) / range, where `before` and `after` are the
  // channels behind and ahead of the largest one. The smallest one's quotient is 1. A grey pixel has
  // saturation 0, and any hue gives it back unchanged: the divisor may be anything.
  const Floats middle = Vec::larger(low_red_green, Vec::smaller(red_green, b));
  const Floats other = Vec::divide(Vec::subtract(v, middle), Vec::larger(range, one));
  const Floats place = Vec::if_equal(r, v, Vec::every_float(0.0F),
                                     Vec::if_equal(g, v, Vec::every_float(2.0F), Vec::every_float(4.0F)));
  const Floats before = Vec::if_equal(r, v, b, Vec::if_equal(g, v, r, g));
  const Floats up = Vec::subtract(Vec::add(place, one), other),
               down = Vec::add(Vec::subtract(place, one), other);
  turns = Vec::divide(Vec::if_equal(before, smallest, up, down), Vec::every_float(6.0F));
}

// The hue as one of 256, shifted: the sixth of the circle that it lies in, and how far into it.
inline void to_sixths(Floats turns, Register shift, Floats& sixth, Floats& left) {
  const Floats by_255 = Vec::every_float(1.0F / 255.0F);
  const Floats positive = Vec::if_negative(turns, Vec::add(turns, Vec::every_float(1.0F)), turns);
  const Register hue = Vec::add_ints(Vec::truncate(floor_of_255(positive)), shift);
  const Floats sixfold =
      Vec::multiply(Vec::to_floats(Vec::and_ints(hue, Vec::every_int(255))), Vec::every_float(6.0F));
  sixth = Vec::to_floats(Vec::truncate(Vec::multiply(Vec::add(sixfold, Vec::every_float(0.5F)), by_255)));
  left = Vec::multiply(Vec::subtract(sixfold, Vec::multiply(sixth, Vec::every_float(255.0F))), by_255);
}

// A channel lacks a share of the largest one that falls from 1 to 0 before the two sixths around `middle`,
// where it is the largest itself, and rises behind them.
inline Floats lack(Floats sixth, Floats left, float middle) {
  const Floats away = Vec::subtract(sixth, Vec::every_float(middle));
  const Floats rising = Vec::add(Vec::subtract(away, Vec::every_float(1.0F)), left);
  const Floats falling = Vec::subtract(Vec::subtract(Vec::every_float(-1.0F), away), left);
  return Vec::larger(rising, falling);
}

// v * (1 - share * lack), rounded.
inline Register channel(Floats v, Floats share, Floats lacking) {
  const Floats gone = Vec::multiply(v, Vec::multiply(share, within_unit(lacking)));
  return Vec::truncate(Vec::add(Vec::subtract(v, gone), Vec::every_float(0.5F)));
}

void shift_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, int by, int count) {
  const Register shift = Vec::every_int(by);
  const Floats by_255 = Vec::every_float(1.0F / 255.0F), one = Vec::every_float(1.0F);
  for (int i = 0; i < count; i += Vec::kBytes) {
    Register red[4], green[4], blue[4];
    Floats turns[4], share[4], v[4], sixth[4], left[4];
    widen(Vec::load(r + i), red);
    widen(Vec::load(g + i), green);
    widen(Vec::load(b + i), blue);
    for (int part = 0; part < 4; ++part) {
      to_turns(Vec::to_floats(red[part]), Vec::to_floats(green[part]), Vec::to_floats(blue[part]),
               turns[part], share[part], v[part]);
    }
    for (int part = 0; part < 4; ++part) {
      to_sixths(turns[part], shift, sixth[part], left[part]);
      share[part] = Vec::multiply(floor_of_255(share[part]), by_255);
    }
    for (int part = 0; part < 4; ++part) {
      red[part] = channel(v[part], share[part], Vec::subtract(one, lack(sixth[part], left[part], 3.0F)));
      green[part] = channel(v[part], share[part], lack(sixth[part], left[part], 2.0F));
      blue[part] = channel(v[part], share[part], lack(sixth[part], left[part], 4.0F));
    }
    Vec::store(r + i, pack(red));
    Vec::store(g + i, pack(green));
    Vec::store(b + i, pack(blue));
  }
}

}  // namespace
}  // namespace fastdino
