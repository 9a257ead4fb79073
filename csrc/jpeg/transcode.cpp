#include "jpeg/transcode.hpp"

#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "jpeg/errors.hpp"

// jerror.h needs jpeglib.h.
#include <jerror.h>

namespace fastdino {
namespace {

constexpr unsigned kLongestSegment = 0xFFFF;
constexpr std::size_t kFirstBuffer = 1 << 16;
constexpr int kAdobe = JPEG_APP0 + 14;

// A warning means damage that libjpeg papers over, differently in the two kinds of file; level 0 and above is
// chatter.
void refuse_warning(j_common_ptr info, int level) {
  if (level < 0) info->err->error_exit(info);
}

// libjpeg's own memory destination leaves a dangling pointer behind when it is interrupted.
struct Destination {
  jpeg_destination_mgr base;  // first member: libjpeg hands back a pointer to it
  std::vector<std::uint8_t> bytes;
};

Destination& destination_of(j_compress_ptr info) {
  return *reinterpret_cast<Destination*>(info->dest);
}

// No exception may cross libjpeg's frames, which are C.
bool resize(std::vector<std::uint8_t>& bytes, std::size_t size) {
  try {
    bytes.resize(size);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void continue_at(j_compress_ptr info, std::size_t written, std::size_t size) {
  Destination& destination = destination_of(info);
  if (!resize(destination.bytes, size)) ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
  destination.base.next_output_byte = destination.bytes.data() + written;
  destination.base.free_in_buffer = size - written;
}

void start_output(j_compress_ptr info) {
  continue_at(info, 0, kFirstBuffer);
}

boolean grow_output(j_compress_ptr info) {
  const std::size_t full = destination_of(info).bytes.size();
  continue_at(info, full, 2 * full);
  return TRUE;
}

// The caller shrinks the buffer, where the vector may throw.
void finish_output(j_compress_ptr) {}

bool starts_with(const jpeg_marker_struct& segment, const char* text, unsigned length) {
  return segment.data_length >= length && std::memcmp(segment.data, text, length) == 0;
}

// libjpeg writes JFIF and Adobe segments by itself where the colour space asks for them.
bool written_anyway(const jpeg_compress_struct& out, const jpeg_marker_struct& segment) {
  return (out.write_JFIF_header && segment.marker == JPEG_APP0 && starts_with(segment, "JFIF", 5)) ||
         (out.write_Adobe_marker && segment.marker == kAdobe && starts_with(segment, "Adobe", 5));
}

class Transcoder {
 public:
  Transcoder() {
    in_.err = out_.err = &errors_.base;
    errors_.base.emit_message = refuse_warning;
    destination_.base.init_destination = start_output;
    destination_.base.empty_output_buffer = grow_output;
    destination_.base.term_destination = finish_output;
  }
  ~Transcoder() {
    jpeg_destroy_compress(&out_);
    jpeg_destroy_decompress(&in_);
  }
  Transcoder(const Transcoder&) = delete;
  Transcoder& operator=(const Transcoder&) = delete;

  // False if libjpeg gave up; `message` then says why.
  bool run(const std::uint8_t* data, std::size_t size) {
    if (setjmp(errors_.escape) != 0) return false;
    jpeg_create_decompress(&in_);
    jpeg_create_compress(&out_);
    out_.dest = &destination_.base;
    jpeg_mem_src(&in_, data, static_cast<unsigned long>(size));
    jpeg_save_markers(&in_, JPEG_COM, kLongestSegment);
    for (int i = 0; i < 16; ++i) jpeg_save_markers(&in_, JPEG_APP0 + i, kLongestSegment);
    jpeg_read_header(&in_, TRUE);
    jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&in_);
    jpeg_copy_critical_parameters(&in_, &out_);
    out_.optimize_coding = TRUE;
    jpeg_write_coefficients(&out_, coefficients);
    for (auto* segment = in_.marker_list; segment != nullptr; segment = segment->next) {
      if (!written_anyway(out_, *segment)) {
        jpeg_write_marker(&out_, segment->marker, segment->data, segment->data_length);
      }
    }
    jpeg_finish_compress(&out_);
    jpeg_finish_decompress(&in_);
    return true;
  }

  const char* message() const { return errors_.message; }

  std::vector<std::uint8_t> take() {
    destination_.bytes.resize(destination_.bytes.size() - destination_.base.free_in_buffer);
    return std::move(destination_.bytes);
  }

 private:
  JpegErrors errors_;
  jpeg_decompress_struct in_ = {};
  jpeg_compress_struct out_ = {};
  Destination destination_ = {};
};

}  // namespace

std::vector<std::uint8_t> to_baseline(const std::uint8_t* data, std::size_t size) {
  Transcoder transcoder;
  if (!transcoder.run(data, size)) throw std::invalid_argument(transcoder.message());
  return transcoder.take();
}

}  // namespace fastdino
