#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

namespace fastdino {

// The bytes of any object with the buffer protocol. While it lives the object can be neither freed nor
// resized, so the bytes may be read with the GIL released.
class ByteView {
 public:
  explicit ByteView(const pybind11::buffer& object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw pybind11::error_already_set();
  }
  ~ByteView() { PyBuffer_Release(&view_); }
  ByteView(const ByteView&) = delete;
  ByteView& operator=(const ByteView&) = delete;

  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_;
};

}  // namespace fastdino
