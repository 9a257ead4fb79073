#include "pool/pool.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "bindings/python_picture.hpp"
#include "pool/file_source.hpp"

namespace py = pybind11;

namespace {

using fastdino::Pool;

template <typename Item>
using Items = py::array_t<Item, py::array::c_style>;

// The arrays of a FileTable, kept alive.
struct Files {
  Files(std::string folder, py::bytes all_names, Items<std::int64_t> name_ends,
        std::optional<Items<std::int32_t>> in_file, std::optional<Items<std::int64_t>> at_offset,
        std::optional<Items<std::int64_t>> of_size)
      : names(std::move(all_names)),
        ends(std::move(name_ends)),
        file(std::move(in_file)),
        offset(std::move(at_offset)),
        size(std::move(of_size)),
        table{std::move(folder),
              PyBytes_AS_STRING(names.ptr()),
              ends.data(),
              file ? file->data() : nullptr,
              offset ? offset->data() : nullptr,
              size ? size->data() : nullptr} {}

  py::bytes names;
  Items<std::int64_t> ends;
  std::optional<Items<std::int32_t>> file;
  std::optional<Items<std::int64_t>> offset, size;
  fastdino::FileTable table;
};

// Reads through a Python function (index -> bytes, or str for a reason), or from files without Python;
// decodes what is no JPEG through another (bytes -> array, or str for a reason). Exceptions of theirs pass
// through.
class PythonSource : public fastdino::PictureSource {
 public:
  PythonSource(py::object read, std::shared_ptr<Files> files, py::object decode)
      : read_(std::move(read)), files_(std::move(files)), decode_(std::move(decode)) {}

  bool read(std::uint64_t index, std::vector<std::uint8_t>& bytes, std::string& reason) override {
    if (files_) return fastdino::read_from_file(files_->table, index, bytes, reason);
    const py::gil_scoped_acquire with_gil;
    const py::object answer = read_(index);
    if (py::isinstance<py::str>(answer)) {
      reason = answer.cast<std::string>();
      return false;
    }
    const auto data = answer.cast<py::bytes>();
    const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(data.ptr()));
    bytes.resize(size);
    std::memcpy(bytes.data(), PyBytes_AS_STRING(data.ptr()), size);
    return true;
  }

  bool decode(const std::vector<std::uint8_t>& bytes, fastdino::Picture& picture,
              std::string& reason) override {
    const py::gil_scoped_acquire with_gil;
    const py::object answer = decode_(py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    if (py::isinstance<py::str>(answer)) {
      reason = answer.cast<std::string>();
      return false;
    }
    fastdino::take_pixels(answer.cast<fastdino::PixelArray>(), picture);
    return true;
  }

 private:
  py::object read_;
  std::shared_ptr<Files> files_;
  py::object decode_;
};

py::object exception_of(const std::exception_ptr& error) {
  if (!error) return py::none();
  try {
    std::rethrow_exception(error);
  } catch (py::error_already_set& raised) {
    return raised.value();
  } catch (const std::bad_alloc&) {
    return py::reinterpret_borrow<py::object>(PyExc_MemoryError)("out of memory");
  } catch (const std::exception& thrown) {
    return py::reinterpret_borrow<py::object>(PyExc_RuntimeError)(thrown.what());
  }
}

// A finished batch for Python: (picture each sample came from, [(picture passed over, why)], whether nothing
// is readable, (picture, exception) or None).
py::tuple report_of(const fastdino::Batch& batch) {
  Items<std::int64_t> used(static_cast<py::ssize_t>(batch.used.size()));
  std::copy(batch.used.begin(), batch.used.end(), used.mutable_data());
  py::object error = py::none();
  if (batch.error) error = py::make_tuple(batch.error_index, exception_of(batch.error));
  py::list skipped;
  for (const auto& [index, reason] : batch.skipped) {
    PyObject* text =
        PyUnicode_DecodeUTF8(reason.data(), static_cast<py::ssize_t>(reason.size()), "backslashreplace");
    skipped.append(py::make_tuple(index, py::reinterpret_steal<py::object>(text)));
  }
  return py::make_tuple(std::move(used), std::move(skipped), batch.unreadable, std::move(error));
}

// The pool, and the Python objects that its threads call: these must go with the GIL held, the threads
// without.
class PoolHandle {
 public:
  PoolHandle(const fastdino::Recipe& recipe, std::uint64_t seed, std::uint64_t pictures, int threads,
             bool shrinking_first, const std::string& output, bool sequential, py::object read,
             std::shared_ptr<Files> files, py::object decode)
      : source_(std::make_shared<PythonSource>(std::move(read), std::move(files), std::move(decode))) {
    const auto order =
        shrinking_first ? fastdino::PassOrder::kShrinkingFirst : fastdino::PassOrder::kHorizontalFirst;
    pool_ = std::make_unique<Pool>(
        fastdino::PoolSettings{recipe, seed, pictures, threads, order, output_named(output), sequential},
        source_);
  }
  ~PoolHandle() { close(); }
  PoolHandle(const PoolHandle&) = delete;
  PoolHandle& operator=(const PoolHandle&) = delete;

  void submit(std::uint64_t epoch, std::uint64_t first, int count, const std::vector<std::uintptr_t>& crops) {
    fastdino::Batch batch{};
    batch.epoch = epoch;
    batch.first = first;
    batch.count = count;
    for (const std::uintptr_t address : crops) batch.crops.push_back(reinterpret_cast<void*>(address));
    const auto wanted = static_cast<std::size_t>(pool().settings().recipe.crops());
    if (batch.crops.size() != wanted) throw std::invalid_argument("a batch has one address for each crop");
    pool().submit(std::move(batch));
  }

  py::tuple wait() {
    constexpr int patience = 100;  // milliseconds until Ctrl-C is looked for
    const Visit visit(visitors_);
    while (true) {
      std::unique_ptr<fastdino::Batch> batch;
      {
        Pool& waited_for = pool();
        const py::gil_scoped_release without_gil;
        batch = waited_for.wait(patience);
      }
      if (batch) return report_of(*batch);
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
  }

  void cancel() {
    const Visit visit(visitors_);
    Pool& cancelled = pool();
    const py::gil_scoped_release without_gil;
    cancelled.cancel();
  }

  void close() {
    const std::unique_ptr<Pool> closed = std::move(pool_);
    if (!closed) return;
    {
      const py::gil_scoped_release without_gil;
      closed->end();
    }
    // Who is inside wait() has yet to find out. Not so in a forked process, where the thread does not exist.
    while (visitors_ > 0 && getpid() == owner_) {
      const py::gil_scoped_release without_gil;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  py::dict spent() {
    py::dict seconds;
    const auto spent = pool().spent();
    for (std::size_t stage = 0; stage < fastdino::kStages; ++stage) {
      seconds[fastdino::kStageNames[stage]] = spent[stage];
    }
    return seconds;
  }

 private:
  // A call that uses the pool without the GIL. The count itself changes with the GIL held.
  class Visit {
   public:
    explicit Visit(int& visitors) : visitors_(visitors) { ++visitors_; }
    ~Visit() { --visitors_; }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    int& visitors_;
  };

  static fastdino::Output output_named(const std::string& name) {
    if (name == "uint8") return fastdino::Output::kBytes;
    if (name == "float32") return fastdino::Output::kFloat;
    if (name == "bfloat16") return fastdino::Output::kBfloat;
    throw std::invalid_argument("there are outputs uint8, float32 and bfloat16");
  }

  Pool& pool() {
    if (!pool_) throw std::runtime_error("the pool is closed");
    return *pool_;
  }

  std::shared_ptr<PythonSource> source_;
  std::unique_ptr<Pool> pool_;
  int visitors_ = 0;
  const pid_t owner_ = getpid();
};

}  // namespace

void bind_pool(py::module_& module) {
  py::class_<Files, std::shared_ptr<Files>>(module, "Files")
      .def(py::init<std::string, py::bytes, Items<std::int64_t>, std::optional<Items<std::int32_t>>,
                    std::optional<Items<std::int64_t>>, std::optional<Items<std::int64_t>>>(),
           py::arg("root"), py::arg("names"), py::arg("ends"), py::arg("file"), py::arg("offset"),
           py::arg("size"));
  py::class_<PoolHandle>(module, "Pool")
      .def(py::init<const fastdino::Recipe&, std::uint64_t, std::uint64_t, int, bool, const std::string&,
                    bool, py::object, std::shared_ptr<Files>, py::object>(),
           py::arg("recipe"), py::arg("seed"), py::arg("pictures"), py::arg("threads"),
           py::arg("shrinking_first"), py::arg("output"), py::arg("sequential"), py::arg("read"),
           py::arg("files").none(true), py::arg("decode"))
      .def("submit", &PoolHandle::submit, py::arg("epoch"), py::arg("first"), py::arg("count"),
           py::arg("crops"))
      .def("wait", &PoolHandle::wait)
      .def("cancel", &PoolHandle::cancel)
      .def("close", &PoolHandle::close)
      .def("spent", &PoolHandle::spent);
}
