#include "jpeg/exif.hpp"

#include <cstring>

namespace fastdino {
namespace {

constexpr int kUpright = 1;
constexpr std::uint32_t kOrientationTag = 0x0112;
constexpr std::uint32_t kShort = 3;
constexpr std::uint32_t kLong = 4;
constexpr std::size_t kEntrySize = 12;

// Unsigned integers of either byte order; what lies outside the block reads as 0, which no valid field is.
class TiffBlock {
 public:
  TiffBlock(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {
    little_endian_ = starts_with("II*\0");
    valid_ = little_endian_ || starts_with("MM\0*");
  }

  bool valid() const { return valid_; }

  std::uint32_t read(std::size_t offset, std::size_t width) const {
    if (offset > size_ || width > size_ - offset) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < width; ++i) {
      value = value << 8 | bytes_[offset + (little_endian_ ? width - 1 - i : i)];
    }
    return value;
  }

 private:
  bool starts_with(const char* magic) const { return size_ >= 4 && std::memcmp(bytes_, magic, 4) == 0; }

  const std::uint8_t* bytes_;
  std::size_t size_;
  bool little_endian_ = false;
  bool valid_ = false;
};

}  // namespace

int exif_orientation(const std::uint8_t* tiff, std::size_t size) {
  const TiffBlock block(tiff, size);
  if (!block.valid()) return kUpright;
  const std::size_t directory = block.read(4, 4);
  const std::size_t entries = block.read(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * kEntrySize;
    if (block.read(entry, 2) != kOrientationTag) continue;
    const std::uint32_t type = block.read(entry + 2, 2);
    if ((type != kShort && type != kLong) || block.read(entry + 4, 4) != 1) return kUpright;
    const std::uint32_t value = block.read(entry + 8, type == kShort ? 2 : 4);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : kUpright;
  }
  return kUpright;
}

}  // namespace fastdino
