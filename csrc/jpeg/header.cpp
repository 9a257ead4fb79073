#include "jpeg/header.hpp"

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

// jpeglib.h needs size_t and FILE, and does not include what declares them.
#include <jpeglib.h>

#include "jpeg/exif.hpp"

namespace fastdino {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;
constexpr unsigned kLongestSegment = 0xFFFF;
constexpr char kExifPrefix[] = {'E', 'x', 'i', 'f', '\0', '\0'};

struct ErrorManager {
  jpeg_error_mgr base;  // first member: libjpeg hands back a pointer to it
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

void escape_with_message(j_common_ptr info) {
  auto* errors = reinterpret_cast<ErrorManager*>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->escape, 1);
}

// libjpeg's default prints warnings to stderr, from where nobody can tell which picture they are about.
void drop_warning(j_common_ptr, int) {}

class HeaderReader {
 public:
  HeaderReader() {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = escape_with_message;
    errors_.base.emit_message = drop_warning;
  }
  ~HeaderReader() { jpeg_destroy_decompress(&info_); }
  HeaderReader(const HeaderReader&) = delete;
  HeaderReader& operator=(const HeaderReader&) = delete;

  // False if libjpeg gave up; `message` then says why. libjpeg leaves by longjmp, which runs no destructors,
  // so nothing in this function may have one.
  bool read(const std::uint8_t* data, std::size_t size) {
    if (setjmp(errors_.escape) != 0) return false;
    jpeg_create_decompress(&info_);
    jpeg_mem_src(&info_, data, static_cast<unsigned long>(size));
    jpeg_save_markers(&info_, kApp1, kLongestSegment);
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  const jpeg_decompress_struct& info() const { return info_; }
  const char* message() const { return errors_.message; }

 private:
  ErrorManager errors_ = {};
  jpeg_decompress_struct info_ = {};
};

// The TIFF block of the EXIF segments: a block longer than one segment goes on in the next.
std::vector<std::uint8_t> exif_block(const jpeg_decompress_struct& info) {
  std::vector<std::uint8_t> block;
  for (auto* segment = info.marker_list; segment != nullptr; segment = segment->next) {
    if (segment->marker != kApp1 || segment->data_length < sizeof kExifPrefix) continue;
    if (std::memcmp(segment->data, kExifPrefix, sizeof kExifPrefix) != 0) continue;
    block.insert(block.end(), segment->data + sizeof kExifPrefix, segment->data + segment->data_length);
  }
  return block;
}

}  // namespace

JpegHeader read_jpeg_header(const std::uint8_t* data, std::size_t size) {
  HeaderReader reader;
  if (!reader.read(data, size)) throw std::invalid_argument(reader.message());
  const jpeg_decompress_struct& info = reader.info();
  const std::vector<std::uint8_t> exif = exif_block(info);
  return {static_cast<int>(info.image_width), static_cast<int>(info.image_height), info.num_components,
          info.progressive_mode != FALSE, exif_orientation(exif.data(), exif.size())};
}

}  // namespace fastdino
