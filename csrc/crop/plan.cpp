#include "crop/plan.hpp"

#include <algorithm>
#include <cmath>

#include "crop/philox.hpp"

namespace fastdino {
namespace {

constexpr double kFlip = 0.5, kJitter = 0.8, kGrayscale = 0.2;
// First global crop, second global crop, every local crop.
constexpr double kBlur[] = {1.0, 0.1, 0.5}, kSolarize[] = {0.0, 0.2, 0.0};
constexpr std::array<double, 2> kBlurRadius = {0.1, 2.0}, kAspectRatio = {3.0 / 4.0, 4.0 / 3.0};
constexpr int kAttempts = 10, kBlocksPerCrop = 16, kFirstBoxDraw = 12, kOrders = 24;

// u[k] of one crop, block by block as they are asked for.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t epoch, std::uint64_t index, int crop)
      : key_{seed, epoch}, index_(index), first_(1 + static_cast<std::uint64_t>(kBlocksPerCrop) * crop) {}

  double operator[](int k) {
    if (k / 4 != block_) {
      block_ = k / 4;
      words_ = philox(key_, {first_ + static_cast<std::uint64_t>(block_), index_, 0, 0});
    }
    return static_cast<double>(words_[static_cast<std::size_t>(k % 4)] >> 11) * 0x1p-53;
  }

 private:
  std::array<std::uint64_t, 2> key_;
  std::uint64_t index_, first_;
  int block_ = -1;
  std::array<std::uint64_t, 4> words_{};
};

double between(double u, const std::array<double, 2>& range) {
  return range[0] + u * (range[1] - range[0]);
}

// Half to even, as Python's round.
int rounded(double value) {
  return static_cast<int>(std::nearbyint(value));
}

bool draw_box(CropPlan& plan, Draws& u, int width, int height, const std::array<double, 2>& scale) {
  static const std::array<double, 2> log_ratio = {std::log(kAspectRatio[0]), std::log(kAspectRatio[1])};
  const double area = static_cast<double>(width) * height;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int k = kFirstBoxDraw + 4 * attempt;
    const double target = area * between(u[k], scale);
    const double ratio = std::exp(between(u[k + 1], log_ratio));
    plan.width = rounded(std::sqrt(target * ratio));
    plan.height = rounded(std::sqrt(target / ratio));
    if (0 < plan.width && plan.width <= width && 0 < plan.height && plan.height <= height) {
      plan.top = static_cast<int>(u[k + 2] * (height - plan.height + 1));
      plan.left = static_cast<int>(u[k + 3] * (width - plan.width + 1));
      return true;
    }
  }
  return false;
}

void take_central_box(CropPlan& plan, int width, int height) {
  plan.width = width;
  plan.height = height;
  const double ratio = static_cast<double>(width) / height;
  if (ratio < kAspectRatio[0]) {
    plan.height = rounded(width / kAspectRatio[0]);
  } else if (ratio > kAspectRatio[1]) {
    plan.width = rounded(height * kAspectRatio[1]);
  }
  plan.top = (height - plan.height) / 2;
  plan.left = (width - plan.width) / 2;
}

void draw_jitter(CropPlan& plan, Draws& u, const Recipe& recipe) {
  const int place = static_cast<int>(u[2] * kOrders);
  std::array<int, 4> order = {0, 1, 2, 3};
  for (int i = 0; i < place; ++i) std::next_permutation(order.begin(), order.end());
  for (const int operation : order) {
    const auto& range = recipe.jitter[static_cast<std::size_t>(operation)];
    if (!(range[0] < range[1])) continue;
    plan.jitter[static_cast<std::size_t>(plan.jitter_steps++)] = {static_cast<Jitter>(operation),
                                                                  between(u[4 + operation], range)};
  }
}

}  // namespace

CropPlan draw_crop(const Recipe& recipe, std::uint64_t seed, std::uint64_t epoch, std::uint64_t index,
                   int crop, int width, int height) {
  Draws u(seed, epoch, index, crop);
  const int kind = std::min(crop, 2);
  CropPlan plan{};
  plan.size = recipe.size(crop);
  plan.flip = u[0] < kFlip;
  plan.grayscale = u[3] < kGrayscale;
  if (u[1] < kJitter) draw_jitter(plan, u, recipe);
  plan.blur_radius = u[8] < kBlur[kind] ? between(u[9], kBlurRadius) : 0.0;
  plan.solarize = u[10] < kSolarize[kind];
  if (!draw_box(plan, u, width, height, crop < 2 ? recipe.global_scale : recipe.local_scale)) {
    take_central_box(plan, width, height);
  }
  return plan;
}

}  // namespace fastdino
