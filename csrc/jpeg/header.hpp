#pragma once

#include <cstddef>
#include <cstdint>

namespace fastdino {

// What a JPEG says about itself before its first scan.
struct JpegHeader {
  int width;  // pixels, as stored: before any turn that the orientation asks for
  int height;
  int components;  // 1 grey, 3 colour, 4 CMYK or YCCK
  bool progressive;
  int orientation;  // EXIF, 1 to 8; 1 if the file has none
};

// Reads the markers up to the first scan and decodes no pixel. Throws std::invalid_argument with libjpeg's
// own words if the bytes are no JPEG, end before the first scan, or are damaged before it.
JpegHeader read_jpeg_header(const std::uint8_t* data, std::size_t size);

}  // namespace fastdino
