#include "jpeg/decoder.hpp"

#include <algorithm>
#include <cstring>

#include "crop/transpose.hpp"
#include "jpeg/errors.hpp"

namespace fastdino {
namespace {

// Twice Pillow's MAX_IMAGE_PIXELS, beyond which it refuses to decode.
constexpr std::uint64_t kMostPixels = 178956970;

std::uint8_t times_over_255(int a, int b) {
  const int product = a * b + 128;
  return static_cast<std::uint8_t>(((product >> 8) + product) >> 8);
}

// As Pillow has it: the four inks are stored inverted, whatever the Adobe marker says.
void cmyk_to_rgb(std::uint8_t* pixels, int count) {
  for (std::uint8_t* pixel = pixels; pixel != pixels + 4 * static_cast<std::ptrdiff_t>(count); pixel += 4) {
    const int light = pixel[3];
    for (int ink = 0; ink < 3; ++ink) {
      const int absorbed = times_over_255(255 - pixel[ink], light);
      pixel[ink] = static_cast<std::uint8_t>(std::max(light - absorbed, 0));
    }
  }
}

}  // namespace

struct JpegDecoder::State {
  State() {
    info.err = &errors.base;
    created = setjmp(errors.escape) == 0;
    if (created) jpeg_create_decompress(&info);
  }
  ~State() { jpeg_destroy_decompress(&info); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  bool refuse(const char* why) {
    std::snprintf(errors.message, sizeof errors.message, "%s", why);
    return false;
  }

  bool start(const std::uint8_t* data, std::size_t size) {
    // What Pillow knows a JPEG by; for libjpeg, anything may stand before the second marker.
    if (size > 2 && data[2] != 0xFF) return refuse("not a JPEG");
    if (setjmp(errors.escape) != 0) return false;
    // An abort would keep the tables of the picture before, and a damaged one that lacks its own would use
    // them.
    jpeg_destroy_decompress(&info);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, data, static_cast<unsigned long>(size));
    // libjpeg's own would pretend that the file ends here, and give grey for what is missing.
    info.src->fill_input_buffer = [](j_decompress_ptr decompress) -> boolean {
      auto* manager = reinterpret_cast<JpegErrors*>(decompress->err);
      std::snprintf(manager->message, sizeof manager->message, "the file is truncated");
      std::longjmp(manager->escape, 1);
    };
    jpeg_read_header(&info, TRUE);
    if (static_cast<std::uint64_t>(info.image_width) * info.image_height > kMostPixels)
      return refuse("too large");
    if (info.num_components == 1) {
      info.out_color_space = JCS_GRAYSCALE;
    } else if (info.num_components == 3) {
      info.out_color_space = JCS_EXT_RGBX;
    } else if (info.num_components == 4) {
      info.out_color_space = JCS_CMYK;
    } else {
      return refuse("neither 1, 3 nor 4 channels");
    }
    jpeg_start_decompress(&info);
    return true;
  }

  // The next rows into `band`, at most kBand of them; the number read, 0 on damage.
  int read_band(std::size_t line_size) {
    if (setjmp(errors.escape) != 0) return 0;
    JSAMPROW lines[Picture::kBand];
    for (int row = 0; row < Picture::kBand; ++row)
      lines[row] = band.data() + static_cast<std::size_t>(row) * line_size;
    const JDIMENSION first = info.output_scanline;
    const JDIMENSION wanted = std::min<JDIMENSION>(Picture::kBand, info.output_height - first);
    while (info.output_scanline < first + wanted) {
      const JDIMENSION done = info.output_scanline - first;
      jpeg_read_scanlines(&info, lines + done, wanted - done);
    }
    // As Pillow does: what follows the last row may show that a part of another file stands here.
    if (info.output_scanline == info.output_height) jpeg_finish_decompress(&info);
    return static_cast<int>(wanted);
  }

  JpegErrors errors;
  jpeg_decompress_struct info = {};
  Buffer band;
  bool created;
};

JpegDecoder::JpegDecoder() : state_(std::make_unique<State>()) {
  if (!state_->created) throw std::bad_alloc();
}

JpegDecoder::~JpegDecoder() = default;

bool JpegDecoder::decode(const std::uint8_t* data, std::size_t size, Picture& picture) {
  if (!state_->start(data, size)) return false;
  const auto width = static_cast<int>(state_->info.output_width),
             height = static_cast<int>(state_->info.output_height);
  const int step = state_->info.out_color_components;
  picture.resize(width, height, step == 1 ? 1 : 3);
  const std::size_t line_size = static_cast<std::size_t>(width + kTile) * static_cast<std::size_t>(step);
  state_->band.reserve(line_size * Picture::kBand);
  for (int top = 0; top < height;) {
    const int rows = state_->read_band(line_size);
    if (rows == 0) return false;
    if (state_->info.out_color_space == JCS_CMYK) {
      for (int row = 0; row < rows; ++row) {
        cmyk_to_rgb(state_->band.data() + static_cast<std::size_t>(row) * line_size, width);
      }
    }
    picture.put_rows(top, rows, state_->band.data(), line_size, step);
    top += rows;
  }
  return true;
}

const char* JpegDecoder::message() const {
  return state_->errors.message;
}

}  // namespace fastdino
