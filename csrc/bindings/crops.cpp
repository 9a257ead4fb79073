#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>

#include "bindings/byte_view.hpp"
#include "bindings/python_picture.hpp"
#include "crop/cropper.hpp"
#include "crop/plan.hpp"
#include "jpeg/decoder.hpp"
#include "pool/order.hpp"

namespace py = pybind11;

namespace {

using fastdino::CropPlan;
using fastdino::PixelArray;

// The fields of fastdino.data.CropPlan in their order; operations by their number.
using PlanFields =
    std::tuple<int, int, int, int, int, bool, std::vector<std::pair<int, double>>, bool, double, bool>;

PlanFields fields_of(const CropPlan& plan) {
  std::vector<std::pair<int, double>> jitter;
  for (int i = 0; i < plan.jitter_steps; ++i) {
    const fastdino::JitterStep& step = plan.jitter[static_cast<std::size_t>(i)];
    jitter.emplace_back(static_cast<int>(step.operation), step.factor);
  }
  return {plan.top,  plan.left, plan.height,    plan.width,       plan.size,
          plan.flip, jitter,    plan.grayscale, plan.blur_radius, plan.solarize};
}

constexpr int kLargestSize = 1 << 14;

fastdino::PassOrder pass_order(bool shrinking_first) {
  return shrinking_first ? fastdino::PassOrder::kShrinkingFirst : fastdino::PassOrder::kHorizontalFirst;
}

CropPlan plan_of(const PlanFields& fields, const fastdino::Picture& picture) {
  constexpr double largest_radius = 50.0;  // beyond it the sums of a box no longer fit in 16 bits
  CropPlan plan{};
  std::vector<std::pair<int, double>> jitter;
  std::tie(plan.top, plan.left, plan.height, plan.width, plan.size, plan.flip, jitter, plan.grayscale,
           plan.blur_radius, plan.solarize) = fields;
  if (plan.top < 0 || plan.left < 0 || plan.height < 1 || plan.width < 1 ||
      plan.top > picture.height() - plan.height || plan.left > picture.width() - plan.width) {
    throw std::invalid_argument("the crop's box does not lie within the picture");
  }
  if (plan.size < 1 || plan.size > kLargestSize)
    throw std::invalid_argument("a crop has 1 to 16384 pixels a side");
  if (!(plan.blur_radius >= 0 && plan.blur_radius <= largest_radius)) {
    throw std::invalid_argument("a blur's radius is 0 to 50 pixels");
  }
  if (jitter.size() > plan.jitter.size()) throw std::invalid_argument("a crop has at most four jitter steps");
  for (const auto& [operation, factor] : jitter) {
    if (operation < 0 || operation > 3) throw std::invalid_argument("there are jitter operations 0 to 3");
    plan.jitter[static_cast<std::size_t>(plan.jitter_steps++)] = {static_cast<fastdino::Jitter>(operation),
                                                                  factor};
  }
  return plan;
}

std::vector<PlanFields> draw_crops(const fastdino::Recipe& recipe, std::uint64_t seed, std::uint64_t epoch,
                                   std::uint64_t index, int width, int height) {
  std::vector<PlanFields> plans;
  for (int crop = 0; crop < recipe.crops(); ++crop) {
    plans.push_back(fields_of(fastdino::draw_crop(recipe, seed, epoch, index, crop, width, height)));
  }
  return plans;
}

std::vector<PixelArray> cut(const fastdino::Picture& picture, const std::vector<PlanFields>& plans,
                            bool shrinking_first) {
  fastdino::Cropper cropper(pass_order(shrinking_first));
  fastdino::Stopwatch watch;
  std::vector<PixelArray> crops;
  for (const PlanFields& fields : plans) {
    const CropPlan plan = plan_of(fields, picture);
    PixelArray crop({3, plan.size, plan.size});
    std::uint8_t* out = crop.mutable_data();
    {
      const py::gil_scoped_release without_gil;
      cropper.cut(picture, plan, fastdino::Output::kBytes, out, watch);
    }
    crops.push_back(std::move(crop));
  }
  return crops;
}

void decode(const py::buffer& data, fastdino::Picture& picture) {
  const fastdino::ByteView bytes(data);
  const py::gil_scoped_release without_gil;
  fastdino::JpegDecoder decoder;
  if (!decoder.decode(bytes.data(), bytes.size(), picture)) throw std::invalid_argument(decoder.message());
}

PixelArray decode_jpeg(const py::buffer& data) {
  fastdino::Picture picture;
  decode(data, picture);
  PixelArray pixels({picture.height(), picture.width(), 3});
  auto out = pixels.mutable_unchecked<3>();
  const py::gil_scoped_release without_gil;
  for (int x = 0; x < picture.width(); ++x) {
    for (int channel = 0; channel < 3; ++channel) {
      const std::uint8_t* column = picture.column(picture.channels() == 1 ? 0 : channel, x);
      for (int y = 0; y < picture.height(); ++y) out(y, x, channel) = column[y];
    }
  }
  return pixels;
}

std::vector<PixelArray> cut_jpeg(const py::buffer& data, const std::vector<PlanFields>& plans,
                                 bool shrinking_first) {
  fastdino::Picture picture;
  decode(data, picture);
  return cut(picture, plans, shrinking_first);
}

PixelArray resize_jpeg(const py::buffer& data, int height, int width, int top, int left, int size,
                       bool shrinking_first) {
  if (height > kLargestSize || width > kLargestSize || size < 1 || top < 0 || left < 0 ||
      top > height - size || left > width - size) {
    throw std::invalid_argument("the square does not lie within the resized picture, or that is too large");
  }
  fastdino::Picture picture;
  decode(data, picture);
  PixelArray square({3, size, size});
  std::uint8_t* out = square.mutable_data();
  const py::gil_scoped_release without_gil;
  fastdino::Cropper cropper(pass_order(shrinking_first));
  cropper.resize(picture, {0, 0, picture.height(), picture.width(), height, width, top, left, size, false},
                 out);
  return square;
}

std::vector<PixelArray> cut_pixels(const PixelArray& pixels, const std::vector<PlanFields>& plans,
                                   bool shrinking_first) {
  fastdino::Picture picture;
  fastdino::take_pixels(pixels, picture);
  return cut(picture, plans, shrinking_first);
}

py::array_t<std::int64_t> epoch_order(std::uint64_t seed, std::uint64_t epoch, std::uint64_t length,
                                      const py::array_t<std::int64_t>& positions) {
  const fastdino::EpochOrder order(seed, epoch, length);
  py::array_t<std::int64_t> indices(positions.size());
  for (py::ssize_t i = 0; i < positions.size(); ++i) {
    indices.mutable_at(i) = static_cast<std::int64_t>(order[static_cast<std::uint64_t>(positions.at(i))]);
  }
  return indices;
}

}  // namespace

void bind_crops(py::module_& module) {
  using Range = std::array<double, 2>;
  py::class_<fastdino::Recipe>(module, "Recipe")
      .def(py::init([](Range global_scale, Range local_scale, int local_crops, int global_size,
                       int local_size, std::array<Range, 4> jitter) {
             return fastdino::Recipe{global_scale, local_scale, local_crops, global_size, local_size, jitter};
           }),
           py::arg("global_scale"), py::arg("local_scale"), py::arg("local_crops"), py::arg("global_size"),
           py::arg("local_size"), py::arg("jitter"));
  module.def("draw_crops", &draw_crops, py::arg("recipe"), py::arg("seed"), py::arg("epoch"),
             py::arg("index"), py::arg("width"), py::arg("height"),
             "The plans of one picture's crops, as tuples.");
  module.def("decode_jpeg", &decode_jpeg, py::arg("data"),
             "(height, width, 3) pixels; ValueError if damaged.");
  module.def("cut_jpeg", &cut_jpeg, py::arg("data"), py::arg("plans"), py::arg("shrinking_first"),
             "The planned crops of a JPEG, (3, size, size) each; ValueError if it is damaged.");
  module.def(
      "resize_jpeg", &resize_jpeg, py::arg("data"), py::arg("height"), py::arg("width"), py::arg("top"),
      py::arg("left"), py::arg("size"), py::arg("shrinking_first"),
      "The square (3, size, size) at `top` and `left` of a JPEG resized to height x width; ValueError if "
      "it is damaged, or there is no such square.");
  module.def("cut_pixels", &cut_pixels, py::arg("pixels"), py::arg("plans"), py::arg("shrinking_first"),
             "The planned crops of a (height, width, 3) picture.");
  module.def("epoch_order", &epoch_order, py::arg("seed"), py::arg("epoch"), py::arg("length"),
             py::arg("positions"));
  module.def(
      "simd", [] { return fastdino::kernels().name; }, "The instruction set that the inner loops use.");
}
