#pragma once

#include <cstddef>
#include <cstdint>

namespace fastdino {

// The orientation (1 to 8, EXIF 2.3 tag 0x0112) that a TIFF block holds in its first directory: the bytes of
// a JPEG's APP1 segment after "Exif\0\0". 1, upright, if the tag is absent or anything about the block is
// damaged.
int exif_orientation(const std::uint8_t* tiff, std::size_t size);

}  // namespace fastdino
