#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "simd/kernels.hpp"

namespace fastdino {

// Bytes with kSlack behind them that keep their place from picture to picture: memory is asked for only when
// more is needed than ever before. What was in it is not kept.
class Buffer {
 public:
  std::uint8_t* reserve(std::size_t size) {
    if (size > size_) {
      bytes_.reset();
      size_ = 0;
      bytes_.reset(static_cast<std::uint8_t*>(std::calloc(size + kSlack, 1)));
      if (!bytes_) throw std::bad_alloc();
      size_ = size;
    }
    return bytes_.get();
  }
  std::uint8_t* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  void release() {
    bytes_.reset();
    size_ = 0;
  }

 private:
  struct Free {
    void operator()(std::uint8_t* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::uint8_t, Free> bytes_;
  std::size_t size_ = 0;
};

}  // namespace fastdino
