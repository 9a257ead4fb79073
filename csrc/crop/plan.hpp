#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace fastdino {

// What the crops are drawn from: fastdino.data.CropRecipe.
struct Recipe {
  std::array<double, 2> global_scale;
  std::array<double, 2> local_scale;
  int local_crops;
  int global_size;
  int local_size;
  std::array<std::array<double, 2>, 4> jitter;  // lowest and highest brightness, contrast, saturation, hue

  int crops() const { return 2 + local_crops; }
  int size(int crop) const { return crop < 2 ? global_size : local_size; }
};

enum class Jitter : std::uint8_t { kBrightness, kContrast, kSaturation, kHue };

struct JitterStep {
  Jitter operation;
  double factor;
};

// fastdino.data.CropPlan.
struct CropPlan {
  int top;
  int left;
  int height;
  int width;
  int size;
  bool flip;
  int jitter_steps;
  std::array<JitterStep, 4> jitter;
  bool grayscale;
  double blur_radius;
  bool solarize;
};

// Draws crop number `crop` of a picture. The specification stands in fastdino/data/plan.py; the same integers
// and doubles come out here.
CropPlan draw_crop(const Recipe& recipe, std::uint64_t seed, std::uint64_t epoch, std::uint64_t index,
                   int crop, int width, int height);

}  // namespace fastdino
