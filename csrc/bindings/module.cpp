#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_jpeg_header(py::module_& module);
void bind_transcode(py::module_& module);
void bind_crops(py::module_& module);
void bind_pool(py::module_& module);

PYBIND11_MODULE(_native, module) {
  module.doc() = "fastdino's C++ part; fastdino.native is its typed front.";
  bind_jpeg_header(module);
  bind_transcode(module);
  bind_crops(module);
  bind_pool(module);
}
