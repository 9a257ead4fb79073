#pragma once

#include <pybind11/numpy.h>

#include "crop/picture.hpp"

namespace fastdino {

using PixelArray = pybind11::array_t<std::uint8_t, pybind11::array::c_style>;

// Copies a (height, width, 3) array. Throws std::invalid_argument for another shape.
void take_pixels(const PixelArray& pixels, Picture& picture);

}  // namespace fastdino
