// Reads the header of every file named on the command line, whole, cut at every length and with bytes
// changed. It is built with the sanitizers, which end it on the first bad access, overflow or leak.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <vector>

#include "jpeg/header.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kDamagedCopies = 5000;
constexpr int kMostChanges = 8;

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// A copy of exactly the given length on the heap: an access one byte beyond it is seen.
bool readable(const Bytes& bytes) {
  const Bytes exact(bytes.begin(), bytes.end());
  try {
    fastdino::read_jpeg_header(exact.data(), exact.size());
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

Bytes damaged(Bytes bytes, std::mt19937& draw) {
  const unsigned changes = 1 + draw() % kMostChanges;
  for (unsigned i = 0; i < changes; ++i) bytes[draw() % bytes.size()] = static_cast<std::uint8_t>(draw());
  return bytes;
}

}  // namespace

int main(int count, char** paths) {
  std::mt19937 draw(0);
  int read = 0, refused = 0;
  for (int i = 1; i < count; ++i) {
    const Bytes file = read_file(paths[i]);
    if (!readable(file)) {
      std::fprintf(stderr, "%s: a good file was refused\n", paths[i]);
      return 1;
    }
    for (std::size_t length = 0; length < file.size(); ++length) {
      ++(readable(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length))) ? read : refused);
    }
    for (int copy = 0; copy < kDamagedCopies; ++copy) ++(readable(damaged(file, draw)) ? read : refused);
  }
  std::printf("sanitizers: %d files whole, %d damaged ones read, %d refused, no fault\n", count - 1, read,
              refused);
  return 0;
}
