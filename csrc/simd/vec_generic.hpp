#pragma once

#include <cstdint>
#include <cstring>

// A register of sixteen bytes for machines without one of the others; compilers turn the loops into what the
// machine has. A register is seen as bytes, as 16-bit shorts or as 32-bit ints, the first at the lowest
// place.
namespace fastdino {
namespace {

struct Vec {
  static constexpr int kBytes = 16;
  // Whether there is multiply_byte_pairs.
  static constexpr bool kMultipliesBytes = false;
  struct Register {
    alignas(16) std::uint8_t bytes[kBytes];
  };

  static Register load(const std::uint8_t* from) {
    Register v;
    std::memcpy(v.bytes, from, kBytes);
    return v;
  }
  static void store(std::uint8_t* to, Register v) { std::memcpy(to, v.bytes, kBytes); }
  static Register zero() { return Register{}; }
  // Shorts first, second, first, second ...
  static Register pairs(std::int16_t first, std::int16_t second) {
    return make<std::int16_t>([=](int i) { return i % 2 ? second : first; });
  }
  static Register every_int(std::int32_t value) {
    return make<std::int32_t>([=](int) { return value; });
  }
  static Register every_byte(std::uint8_t value) {
    return make<std::uint8_t>([=](int) { return value; });
  }
  // Modulo 256, and clipped to 0 .. 255.
  static Register add_bytes(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x + y; });
  }
  static Register subtract_bytes(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x - y; });
  }
  static Register add_bytes_clipped(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x + y > 255 ? 255 : x + y; });
  }
  static Register subtract_bytes_clipped(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x > y ? x - y : 0; });
  }
  static Register larger_bytes(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x > y ? x : y; });
  }
  static Register smaller_bytes(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x < y ? x : y; });
  }
  // 255 where a == b, 0 elsewhere.
  static Register equal_bytes(Register a, Register b) {
    return of_bytes(a, b, [](int x, int y) { return x == y ? 255 : 0; });
  }
  // `yes` where `mask` is 255, `no` where it is 0.
  static Register choose(Register mask, Register yes, Register no) {
    return make<std::uint8_t>([&](int i) { return (mask.bytes[i] != 0 ? yes : no).bytes[i]; });
  }
  // The sums of eight bytes each, as 64-bit integers.
  static Register sum_bytes(Register v) {
    return make<std::uint64_t>([&](int i) {
      std::uint64_t total = 0;
      for (int place = 8 * i; place < 8 * i + 8; ++place) total += v.bytes[place];
      return total;
    });
  }
  static Register add_longs(Register a, Register b) {
    return make<std::uint64_t>([&](int i) { return get<std::uint64_t>(a, i) + get<std::uint64_t>(b, i); });
  }
  // a0 b0 a1 b1 ... of the first and of the second half.
  static Register zip_low_bytes(Register a, Register b) { return zip<std::uint8_t>(a, b, 0); }
  static Register zip_high_bytes(Register a, Register b) { return zip<std::uint8_t>(a, b, kBytes / 2); }
  static Register zip_low_shorts(Register a, Register b) { return zip<std::int16_t>(a, b, 0); }
  static Register zip_high_shorts(Register a, Register b) { return zip<std::int16_t>(a, b, kBytes / 4); }
  // Ints a0 * b0 + a1 * b1, a2 * b2 + a3 * b3 ... of shorts.
  static Register multiply_pairs(Register a, Register b) {
    return make<std::int32_t>([&](int i) {
      return get<std::int16_t>(a, 2 * i) * get<std::int16_t>(b, 2 * i) +
             get<std::int16_t>(a, 2 * i + 1) * get<std::int16_t>(b, 2 * i + 1);
    });
  }
  // The low 16 bits of the products.
  static Register multiply_shorts(Register a, Register b) {
    return make<std::uint16_t>([&](int i) {
      return static_cast<std::uint16_t>(std::uint32_t{get<std::uint16_t>(a, i)} * get<std::uint16_t>(b, i));
    });
  }
  static Register add_shorts(Register a, Register b) {
    return make<std::uint16_t>([&](int i) {
      return static_cast<std::uint16_t>(get<std::uint16_t>(a, i) + get<std::uint16_t>(b, i));
    });
  }
  // Modulo 2^32.
  static Register add_ints(Register a, Register b) {
    return make<std::uint32_t>([&](int i) { return get<std::uint32_t>(a, i) + get<std::uint32_t>(b, i); });
  }
  template <int kBits>
  static Register shift_left(Register v) {
    return make<std::uint32_t>([&](int i) { return get<std::uint32_t>(v, i) << kBits; });
  }
  template <int kBits>
  static Register shift_right_signed(Register v) {
    return make<std::int32_t>([&](int i) { return get<std::int32_t>(v, i) >> kBits; });
  }
  template <int kBits>
  static Register shift_right_unsigned(Register v) {
    return make<std::uint32_t>([&](int i) { return get<std::uint32_t>(v, i) >> kBits; });
  }
  // Ints of a, then of b, as shorts, clipped to what a short holds.
  static Register pack_ints(Register a, Register b) {
    return make<std::int16_t>([&](int i) {
      const std::int32_t value = i < 4 ? get<std::int32_t>(a, i) : get<std::int32_t>(b, i - 4);
      return static_cast<std::int16_t>(value < -32768 ? -32768 : value > 32767 ? 32767 : value);
    });
  }
  // Shorts of a, then of b, as bytes, clipped to 0 .. 255.
  static Register pack_shorts(Register a, Register b) {
    return make<std::uint8_t>([&](int i) {
      const int value = i < 8 ? get<std::int16_t>(a, i) : get<std::int16_t>(b, i - 8);
      return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    });
  }

  // Floats in the places of ints.
  using Floats = Register;
  static Floats every_float(float value) {
    return make<float>([=](int) { return value; });
  }
  static Floats to_floats(Register ints) {
    return make<float>([&](int i) { return static_cast<float>(get<std::int32_t>(ints, i)); });
  }
  static Register truncate(Floats v) {
    return make<std::int32_t>([&](int i) { return static_cast<std::int32_t>(get<float>(v, i)); });
  }
  // To the nearest, ties to even.
  static Register round(Floats v) {
    return make<std::int32_t>(
        [&](int i) { return static_cast<std::int32_t>(__builtin_nearbyintf(get<float>(v, i))); });
  }
  static Floats add(Floats a, Floats b) {
    return make<float>([&](int i) { return get<float>(a, i) + get<float>(b, i); });
  }
  static Floats subtract(Floats a, Floats b) {
    return make<float>([&](int i) { return get<float>(a, i) - get<float>(b, i); });
  }
  static Floats multiply(Floats a, Floats b) {
    return make<float>([&](int i) { return get<float>(a, i) * get<float>(b, i); });
  }
  static Floats divide(Floats a, Floats b) {
    return make<float>([&](int i) { return get<float>(a, i) / get<float>(b, i); });
  }
  static Floats larger(Floats a, Floats b) {
    return make<float>(
        [&](int i) { return get<float>(a, i) > get<float>(b, i) ? get<float>(a, i) : get<float>(b, i); });
  }
  static Floats if_negative(Floats v, Floats yes, Floats no) {
    return make<float>([&](int i) { return get<float>(get<float>(v, i) < 0 ? yes : no, i); });
  }
  static Register and_ints(Register a, Register b) {
    return make<std::uint32_t>([&](int i) { return get<std::uint32_t>(a, i) & get<std::uint32_t>(b, i); });
  }

 private:
  template <typename Function>
  static Register of_bytes(const Register& a, const Register& b, Function function) {
    return make<std::uint8_t>(
        [&](int i) { return static_cast<std::uint8_t>(function(a.bytes[i], b.bytes[i])); });
  }
  template <typename Item>
  static Item get(const Register& v, int i) {
    Item item;
    std::memcpy(&item, v.bytes + i * sizeof item, sizeof item);
    return item;
  }
  template <typename Item, typename Make>
  static Register make(Make item_at) {
    Register v;
    for (int i = 0; i < kBytes / static_cast<int>(sizeof(Item)); ++i) {
      const Item item = item_at(i);
      std::memcpy(v.bytes + i * sizeof item, &item, sizeof item);
    }
    return v;
  }
  template <typename Item>
  static Register zip(const Register& a, const Register& b, int first) {
    return make<Item>([&](int i) { return get<Item>(i % 2 ? b : a, first + i / 2); });
  }
};

}  // namespace
}  // namespace fastdino
