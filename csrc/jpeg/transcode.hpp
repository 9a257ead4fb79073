#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastdino {

// The JPEG as one baseline scan with Huffman tables fitted to it: the coefficients, and so the pixels, stay,
// and so do EXIF, colour profile and comments. A progressive file takes two to three times as long to decode.
// Throws std::invalid_argument with libjpeg's own words if the bytes are no JPEG or are damaged in any way,
// even one that a decoder would forgive.
std::vector<std::uint8_t> to_baseline(const std::uint8_t* data, std::size_t size);

}  // namespace fastdino
