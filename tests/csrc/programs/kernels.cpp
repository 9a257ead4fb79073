// Every kernel over random contents and lengths: each instruction set must give the same bytes, and touch
// nothing further than kSlack beyond the end.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "crop/resample_table.hpp"
#include "programs/instruction_sets.hpp"
#include "programs/support.hpp"

namespace {

using namespace fastdino;
using namespace fastdino::testing;

constexpr int kRounds = 150, kLongest = 300;

// Contents that differ from round to round: anything, few values, or nothing but the extremes.
Bytes random_bytes(std::size_t size, std::mt19937& draw) {
  Bytes bytes(size);
  const unsigned kind = draw() % 3, base = draw();
  for (std::uint8_t& byte : bytes) {
    const unsigned value = draw();
    byte = static_cast<std::uint8_t>(kind == 0 ? value : kind == 1 ? base + value % 4 : value % 2 * 255);
  }
  return bytes;
}

// Random arguments for one call of every kernel.
struct Arguments {
  explicit Arguments(std::mt19937& draw)
      : count(1 + static_cast<int>(draw() % kLongest)),
        radius(static_cast<int>(draw() % 3)),
        solid(static_cast<int>(draw() % 256)),
        shift(static_cast<int>(draw() % 255) - 127),
        solarize(draw() % 2 != 0),
        factor(static_cast<float>(draw() % 4001) / 1000.0F) {
    const int in_size = 1 + static_cast<int>(draw() % 400), out_size = 1 + static_cast<int>(draw() % 230);
    tables[0].compute(in_size, out_size, false);
    tables[1].compute(in_size, out_size, true);
    element = static_cast<int>(draw() % static_cast<unsigned>(out_size));
    const auto rows_size = static_cast<std::size_t>(stride() * tables[0].window(element).taps);
    rows = random_bytes(rows_size + kSlack, draw);
    for (Bytes& plane : planes) plane = random_bytes(static_cast<std::size_t>(count) + kSlack, draw);
    // Within what two fixed-point weights of a box of this radius may be.
    near = static_cast<std::uint32_t>((1 << 24) / (2 * radius + 1 + draw() % 1000 / 500.0));
    far = ((1U << 24) - static_cast<std::uint32_t>(2 * radius + 1) * near) / 2;
  }
  std::ptrdiff_t stride() const { return count; }

  int count, radius, solid, shift;
  bool solarize;
  float factor;
  ResampleTable tables[2];  // with short low parts, and with bytes
  int element;
  Bytes rows;
  Bytes planes[8];
  std::uint32_t near, far;
};

void append(Bytes& all, const void* from, std::size_t size) {
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  all.insert(all.end(), bytes, bytes + size);
}

Bytes fresh(std::size_t count) {
  return Bytes(count + kSlack);
}

// What all of the kernels make of the arguments, one after another.
Bytes results(const Kernels& kernels, const Arguments& a) {
  constexpr Normalization how = {0.485F, 0.229F};
  const auto count = static_cast<std::size_t>(a.count);
  Bytes all, out = fresh(count);
  const ResampleTable& table = a.tables[kernels.multiplies_bytes ? 1 : 0];
  kernels.weigh_rows(out.data(), a.rows.data(), a.stride(), table.filter(table.window(a.element)), a.count);
  append(all, out.data(), count);

  const std::uint8_t* rows[8];
  for (int i = 0; i < 8; ++i) rows[i] = a.planes[i].data();
  out = fresh(count);
  kernels.box_rows(out.data(), rows + a.radius + 1, {a.radius, a.near, a.far}, a.count);
  append(all, out.data(), count);

  Bytes r = a.planes[0], g = a.planes[1], b = a.planes[2];
  const auto append_planes = [&] {
    for (const Bytes* plane : {&r, &g, &b}) append(all, plane->data(), count);
  };
  out = fresh(count);
  kernels.luma(out.data(), r.data(), g.data(), b.data(), a.count);
  append(all, out.data(), count);
  const std::uint64_t sum = kernels.sum(r.data(), a.count);
  append(all, &sum, sizeof sum);
  kernels.shift_hue(r.data(), g.data(), b.data(), a.shift, a.count);
  append_planes();
  kernels.blend_luma(r.data(), g.data(), b.data(), a.factor, a.count);
  append_planes();
  kernels.blend_solid(r.data(), a.solid, a.factor, a.count);
  append_planes();

  // Exactly `count` elements: the batch goes on behind them.
  Bytes stored(count);
  kernels.store_bytes(stored.data(), a.planes[0].data(), a.solarize, a.count);
  append(all, stored.data(), count);
  std::vector<float> floats(count);
  kernels.store_float(floats.data(), a.planes[0].data(), a.solarize, how, a.count);
  append(all, floats.data(), count * sizeof(float));
  std::vector<std::uint16_t> bfloats(count);
  kernels.store_bfloat(bfloats.data(), a.planes[0].data(), a.solarize, how, a.count);
  append(all, bfloats.data(), count * sizeof(std::uint16_t));
  return all;
}

}  // namespace

int main() {
  std::mt19937 draw(0);
  const std::vector<InstructionSet> sets = instruction_sets();
  for (int round = 0; round < kRounds; ++round) {
    const Arguments arguments(draw);
    const Bytes expected = results(*sets.front().kernels, arguments);
    for (const InstructionSet& set : sets) {
      const Bytes got = results(*set.kernels, arguments);
      std::size_t place = 0;
      while (place < got.size() && got[place] == expected[place]) ++place;
      require(place == got.size(), std::string(set.name) + " differs in round " + std::to_string(round) +
                                       " at byte " + std::to_string(place) + " of " +
                                       std::to_string(got.size()) + ", count " +
                                       std::to_string(arguments.count));
    }
  }
  std::printf("kernels: %d rounds the same for", kRounds);
  for (const InstructionSet& set : sets) std::printf(" [%s]", set.name);
  std::printf("\n");
}
