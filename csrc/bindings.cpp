#include <pybind11/pybind11.h>

#include "jpeg_header.hpp"

namespace py = pybind11;

namespace {

// The bytes of any object with the buffer protocol. While it lives the object can be neither freed nor
// resized, so the bytes may be read with the GIL released.
class ByteView {
 public:
  explicit ByteView(const py::buffer& object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  }
  ~ByteView() { PyBuffer_Release(&view_); }
  ByteView(const ByteView&) = delete;
  ByteView& operator=(const ByteView&) = delete;

  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_;
};

fastdino::JpegHeader jpeg_header(const py::buffer& data) {
  const ByteView bytes(data);
  const py::gil_scoped_release without_gil;
  return fastdino::read_jpeg_header(bytes.data(), bytes.size());
}

}  // namespace

void bind_transcode(py::module_& module);

PYBIND11_MODULE(_native, module) {
  module.doc() = "fastdino's C++ part; fastdino.native is its typed front.";

  py::class_<fastdino::JpegHeader>(module, "JpegHeader")
      .def_readonly("width", &fastdino::JpegHeader::width)
      .def_readonly("height", &fastdino::JpegHeader::height)
      .def_readonly("components", &fastdino::JpegHeader::components)
      .def_readonly("progressive", &fastdino::JpegHeader::progressive)
      .def_readonly("orientation", &fastdino::JpegHeader::orientation);

  module.def("jpeg_header", &jpeg_header, py::arg("data"),
             "The header of the JPEG in a contiguous buffer; ValueError if it cannot be read.");

  bind_transcode(module);
}
