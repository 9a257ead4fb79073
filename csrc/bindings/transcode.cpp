#include "jpeg/transcode.hpp"

#include <pybind11/pybind11.h>

#include "bindings/byte_view.hpp"

namespace py = pybind11;

namespace {

py::bytes to_baseline(const py::buffer& data) {
  const fastdino::ByteView bytes(data);
  std::vector<std::uint8_t> baseline;
  {
    const py::gil_scoped_release without_gil;
    baseline = fastdino::to_baseline(bytes.data(), bytes.size());
  }
  return py::bytes(reinterpret_cast<const char*>(baseline.data()), baseline.size());
}

}  // namespace

void bind_transcode(py::module_& module) {
  module.def("to_baseline", &to_baseline, py::arg("data"),
             "The JPEG as one baseline scan, with the same pixels; ValueError if it is damaged.");
}
