#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "crop/picture.hpp"

namespace fastdino {

// Decodes JPEGs to RGB, or to one plane for grey ones, with the same pixels as Pillow: accurate inverse DCT,
// smooth chroma upsampling, CMYK and YCCK by Pillow's formula. Kept from picture to picture.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // False if the bytes are no JPEG, end too early, are damaged beyond what libjpeg forgives, have a number of
  // channels other than 1, 3 or 4, or more pixels than Pillow decodes.
  bool decode(const std::uint8_t* data, std::size_t size, Picture& picture);
  // Why the last `decode` returned false.
  const char* message() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdino
