#include <pybind11/pybind11.h>

#include <string_view>

#include "transcode.hpp"

namespace py = pybind11;

namespace {

py::bytes to_baseline(const py::bytes& data) {
  const std::string_view bytes = data;
  std::vector<std::uint8_t> baseline;
  {
    const py::gil_scoped_release without_gil;
    baseline = fastdino::to_baseline(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  return py::bytes(reinterpret_cast<const char*>(baseline.data()), baseline.size());
}

}  // namespace

void bind_transcode(py::module_& module) {
  module.def("to_baseline", &to_baseline, py::arg("data"),
             "The JPEG as one baseline scan, with the same pixels; ValueError if it is damaged.");
}
