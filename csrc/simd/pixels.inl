// Operations on single pixels, written so that compilers vectorise them: no branches, no calls, exact counts.
// Included once for each instruction set. Floating-point contraction must be off: the roundings are Pillow's.
namespace fastdino {
namespace {

using Byte = std::uint8_t;

inline float clip(float value) {
  const float positive = value > 0.0F ? value : 0.0F;
  return positive < 255.0F ? positive : 255.0F;
}

inline int luma_of(int r, int g, int b) { return (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16; }

inline int largest(int a, int b) { return a > b ? a : b; }
inline int smallest(int a, int b) { return a < b ? a : b; }

// `yes` or `no`, in a form that no compiler turns into a branch: with one, the loop would not be vectorised.
inline int pick(bool choice, int yes, int no) { return no ^ ((yes ^ no) & -static_cast<int>(choice)); }
inline float pick(bool choice, float yes, float no) {
  int yes_bits, no_bits;
  __builtin_memcpy(&yes_bits, &yes, sizeof yes);
  __builtin_memcpy(&no_bits, &no, sizeof no);
  const int bits = pick(choice, yes_bits, no_bits);
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// floor(share * 255) without rounding the product to a float first.
inline int floor_of_255(float share) {
  const int floor = static_cast<int>(share * 255.0F);
  const float above = (share * 256.0F - static_cast<float>(floor)) - share;  // each difference is exact
  return pick(above < 0.0F, floor - 1, floor);
}

// What a channel holds in the sixths of the colour circle, counted from its own place: v q p p t v. A hue of
// 255 is a full turn, sixth 6 of the red channel.
inline Byte hue_channel(int sixth, int v, int p, int q, int t) {
  const int rising_or_falling = pick(sixth == 1, q, pick(sixth == 4, t, p));
  return static_cast<Byte>(pick(sixth == 0, v, pick(sixth >= 5, v, rising_or_falling)));
}

void blend_solid(Byte* __restrict plane, int ground, float factor, int count) {
  const auto base = static_cast<float>(ground);
  for (int i = 0; i < count; ++i) {
    plane[i] = static_cast<Byte>(static_cast<int>(clip(base + factor * static_cast<float>(plane[i] - ground))));
  }
}

void blend_luma(Byte* __restrict r, Byte* __restrict g, Byte* __restrict b, float factor, int count) {
  for (int i = 0; i < count; ++i) {
    const int ground = luma_of(r[i], g[i], b[i]);
    const auto base = static_cast<float>(ground);
    r[i] = static_cast<Byte>(static_cast<int>(clip(base + factor * static_cast<float>(r[i] - ground))));
    g[i] = static_cast<Byte>(static_cast<int>(clip(base + factor * static_cast<float>(g[i] - ground))));
    b[i] = static_cast<Byte>(static_cast<int>(clip(base + factor * static_cast<float>(b[i] - ground))));
  }
}

void luma(Byte* __restrict out, const Byte* __restrict r, const Byte* __restrict g, const Byte* __restrict b,
          int count) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<Byte>(luma_of(r[i], g[i], b[i]));
}

std::uint64_t sum(const Byte* plane, int count) {
  std::uint64_t total = 0;
  for (int i = 0; i < count; ++i) total += plane[i];
  return total;
}

void shift_hue(Byte* __restrict red, Byte* __restrict green, Byte* __restrict blue, int shift, int count) {
  for (int i = 0; i < count; ++i) {
    const int r = red[i], g = green[i], b = blue[i];
    const int v = largest(r, largest(g, b)), range = v - smallest(r, smallest(g, b));
    // A grey pixel has saturation 0, and any hue gives it back unchanged: the divisor may be anything.
    float divisor = static_cast<float>(largest(range, 1));
    float rc = static_cast<float>(v - r) / divisor;
    float gc = static_cast<float>(v - g) / divisor;
    float bc = static_cast<float>(v - b) / divisor;
    float after_green = static_cast<float>(2.0 + rc - bc), after_blue = static_cast<float>(4.0 + gc - rc);
    float sixths = pick(r == v, bc - gc, pick(g == v, after_green, after_blue));
    const double turns = sixths / 6.0 + 1.0;
    float hue = static_cast<float>(turns - static_cast<double>(static_cast<int>(turns)));
    const int h = (floor_of_255(hue) + shift) & 255;
    const int s = floor_of_255(static_cast<float>(range) / static_cast<float>(largest(v, 1)));

    const int part = (6 * h * 32897) >> 23;  // 6 h / 255 for all 256 of them
    float within = static_cast<float>(6 * h - 255 * part) / 255.0F;
    float share = static_cast<float>(s) / 255.0F;
    const double value = v;
    const int p = static_cast<int>(value * (1.0 - static_cast<double>(share)) + 0.5);
    const int q = static_cast<int>(value * (1.0 - static_cast<double>(share * within)) + 0.5);
    const int t = static_cast<int>(value * (1.0 - share * (1.0 - static_cast<double>(within))) + 0.5);
    red[i] = hue_channel(part, v, p, q, t);
    green[i] = hue_channel(pick(part >= 2, part - 2, part + 4), v, p, q, t);
    blue[i] = hue_channel(pick(part >= 4, part - 4, part + 2), v, p, q, t);
  }
}

// Pillow turns x >= 128 into 255 - x, which is then the smaller of the two.
inline int solarized(int x) { return x < 255 - x ? x : 255 - x; }

inline float normalized(int x, Normalization how) {
  return (static_cast<float>(x) / 255.0F - how.mean) / how.deviation;
}

// Rounds to nearest, ties to even; there is no infinity or NaN among the values.
inline std::uint16_t bfloat(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void store_bytes(Byte* __restrict out, const Byte* __restrict plane, bool solarize, int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = static_cast<Byte>(solarized(plane[i]));
  } else {
    for (int i = 0; i < count; ++i) out[i] = plane[i];
  }
}

void store_float(float* __restrict out, const Byte* __restrict plane, bool solarize, Normalization how, int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = normalized(solarized(plane[i]), how);
  } else {
    for (int i = 0; i < count; ++i) out[i] = normalized(plane[i], how);
  }
}

void store_bfloat(std::uint16_t* __restrict out, const Byte* __restrict plane, bool solarize, Normalization how,
                  int count) {
  if (solarize) {
    for (int i = 0; i < count; ++i) out[i] = bfloat(normalized(solarized(plane[i]), how));
  } else {
    for (int i = 0; i < count; ++i) out[i] = bfloat(normalized(plane[i], how));
  }
}

}  // namespace
}  // namespace fastdino
