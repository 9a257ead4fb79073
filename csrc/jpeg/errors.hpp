#pragma once

#include <csetjmp>
#include <cstdio>

// jpeglib.h needs size_t and FILE, and does not include what declares them.
#include <jpeglib.h>

namespace fastdino {

// Turns libjpeg's errors into a jump back to whoever called it, who finds them in `message`. libjpeg leaves
// by longjmp, which runs no destructors: nothing in a function that calls setjmp on `escape` may have one.
struct JpegErrors {
  jpeg_error_mgr base;  // first member: libjpeg hands back a pointer to it
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];

  JpegErrors() : escape(), message() {
    jpeg_std_error(&base);
    base.error_exit = [](j_common_ptr info) {
      auto* errors = reinterpret_cast<JpegErrors*>(info->err);
      errors->base.format_message(info, errors->message);
      std::longjmp(errors->escape, 1);
    };
    // libjpeg's default prints warnings to stderr, from where nobody can tell which picture they are about.
    base.emit_message = [](j_common_ptr, int) {};
  }
};

}  // namespace fastdino
