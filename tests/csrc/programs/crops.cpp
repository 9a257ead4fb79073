// Decodes every file named on the command line, whole and damaged, and cuts crops out of it, with a decoder,
// a picture and croppers that stay from one to the next. Every instruction set must give the same bytes.
#include <array>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "jpeg/decoder.hpp"
#include "jpeg/header.hpp"
#include "programs/instruction_sets.hpp"
#include "programs/support.hpp"

namespace {

using namespace fastdino;
using namespace fastdino::testing;

constexpr int kSizes[] = {1, 2, 3, 7, 16, 33, 96};
constexpr std::uint64_t kSizeCount = sizeof kSizes / sizeof *kSizes;
constexpr std::uint64_t kWholePlans = 14, kDamagedPlans = 2, kComparedPlans = 14;
constexpr int kDamagedCopies = 40;
constexpr std::size_t kCuts = 30;

constexpr PassOrder kOrders[] = {PassOrder::kHorizontalFirst, PassOrder::kShrinkingFirst};

// One for each order of the passes.
using Croppers = std::array<Cropper, 2>;
Croppers croppers() {
  return {Cropper(kOrders[0]), Cropper(kOrders[1])};
}

// All crops that `index` draws, and a square of the picture resized, one after another.
Bytes cut_all(Croppers& croppers, const Picture& picture, std::uint64_t index) {
  const Recipe recipe =
      recipe_of(kSizes[index % kSizeCount], kSizes[(index / kSizeCount + index) % kSizeCount], 1);
  Bytes all;
  for (int crop = 0; crop < recipe.crops(); ++crop) {
    const CropPlan plan = draw_crop(recipe, 0, 0, index, crop, picture.width(), picture.height());
    for (Cropper& cropper : croppers) {
      const Bytes out = cut(cropper, picture, plan, static_cast<Output>(index % 3));
      all.insert(all.end(), out.begin(), out.end());
    }
  }
  // Enlarged and shrunk, in either direction, and a square wherever there is room.
  const int size = kSizes[index % kSizeCount];
  Resize whole{0, 0, picture.height(), picture.width(), 0, 0, 0, 0, size, index % 2 == 1};
  whole.first_row = static_cast<int>(index * 7 % 40);
  whole.first_column = static_cast<int>(index * 11 % 90);
  whole.to_height = size + 2 * whole.first_row;
  whole.to_width = size + whole.first_column;
  for (Cropper& cropper : croppers) {
    const Bytes out = resized(cropper, picture, whole);
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

// Damage may make a small file claim to be a large picture, of which there is nothing new to learn.
bool is_small(const Bytes& bytes) {
  constexpr int kMostPixels = 1 << 18;
  try {
    const JpegHeader header = read_jpeg_header(bytes.data(), bytes.size());
    return header.width <= kMostPixels / header.height;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

class Desk {
 public:
  bool use(const Bytes& bytes, std::uint64_t first_plan, std::uint64_t plans) {
    const Bytes exact(bytes);
    if (!is_small(exact) || !decoder_.decode(exact.data(), exact.size(), picture_)) return false;
    for (std::uint64_t plan = 0; plan < plans; ++plan) cut_all(croppers_, picture_, first_plan + plan);
    return true;
  }

 private:
  JpegDecoder decoder_;
  Picture picture_;
  Croppers croppers_ = croppers();
};

void compare(const std::vector<Bytes>& files, const std::vector<InstructionSet>& sets) {
  std::vector<Bytes> expected;
  for (const InstructionSet& set : sets) {
    choose(set);
    Croppers kept = croppers();
    JpegDecoder decoder;
    Picture picture;
    for (std::size_t i = 0; i < files.size(); ++i) {
      require(decoder.decode(files[i].data(), files[i].size(), picture), decoder.message());
      for (std::uint64_t plan = 0; plan < kComparedPlans / 2; ++plan) {
        const std::uint64_t index = 2 * plan + i % 2;
        const std::size_t place = i * kComparedPlans / 2 + plan;
        Bytes crops = cut_all(kept, picture, index);
        if (place == expected.size())
          expected.push_back(std::move(crops));
        else
          require(crops == expected[place],
                  std::string(set.name) + ": file " + std::to_string(i) + ", plan " + std::to_string(index));
      }
    }
  }
}

}  // namespace

int main(int count, char** paths) {
  const std::vector<Bytes> files = read_files(count, paths);
  const std::vector<InstructionSet> sets = instruction_sets();
  choose(sets.back());
  std::mt19937 draw(0);
  Desk desk;
  int decoded = 0, refused = 0;
  std::uint64_t plan = 0;
  for (const Bytes& file : files) {
    require(desk.use(file, 0, kWholePlans), "a good file was refused");
    const auto try_damaged = [&](const Bytes& bytes) {
      ++(desk.use(bytes, plan += kDamagedPlans, kDamagedPlans) ? decoded : refused);
    };
    for (std::size_t cut = 0; cut < kCuts; ++cut) try_damaged(cut_at(file, file.size() * cut / kCuts));
    for (int copy = 0; copy < kDamagedCopies; ++copy) try_damaged(damaged(file, draw));
  }
  require(decoded > 0 && refused > 0, "damage was always, or never, seen");
  compare(files, sets);
  std::printf("crops: %d files whole; damaged: %d decoded, %d refused; %zu instruction sets agree\n",
              count - 1, decoded, refused, sets.size());
}
