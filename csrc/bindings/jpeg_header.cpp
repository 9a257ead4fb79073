#include <pybind11/pybind11.h>

#include "bindings/byte_view.hpp"
#include "jpeg/header.hpp"

namespace py = pybind11;

namespace {

fastdino::JpegHeader jpeg_header(const py::buffer& data) {
  const fastdino::ByteView bytes(data);
  const py::gil_scoped_release without_gil;
  return fastdino::read_jpeg_header(bytes.data(), bytes.size());
}

}  // namespace

void bind_jpeg_header(py::module_& module) {
  py::class_<fastdino::JpegHeader>(module, "JpegHeader")
      .def_readonly("width", &fastdino::JpegHeader::width)
      .def_readonly("height", &fastdino::JpegHeader::height)
      .def_readonly("components", &fastdino::JpegHeader::components)
      .def_readonly("progressive", &fastdino::JpegHeader::progressive)
      .def_readonly("orientation", &fastdino::JpegHeader::orientation);

  module.def("jpeg_header", &jpeg_header, py::arg("data"),
             "The header of the JPEG in a contiguous buffer; ValueError if it cannot be read.");
}
