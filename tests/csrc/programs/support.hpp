// What the test programs share: files, damage, and a way to say what is wrong.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "crop/cropper.hpp"
#include "crop/plan.hpp"

namespace fastdino::testing {

using Bytes = std::vector<std::uint8_t>;

// Ends the program if `holds` is false.
inline void require(bool holds, const std::string& otherwise) {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s\n", otherwise.c_str());
  std::exit(1);
}

inline Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  Bytes bytes(std::istreambuf_iterator<char>(file), {});
  require(!bytes.empty(), std::string(path) + " cannot be read");
  return bytes;
}

inline std::vector<Bytes> read_files(int count, char** paths) {
  std::vector<Bytes> files;
  for (int i = 1; i < count; ++i) files.push_back(read_file(paths[i]));
  require(!files.empty(), "no files were named");
  return files;
}

// The first `length` bytes, in memory of exactly that size: an access one byte beyond it is seen.
inline Bytes cut_at(const Bytes& bytes, std::size_t length) {
  return Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
}

// One to eight bytes replaced.
inline Bytes damaged(Bytes bytes, std::mt19937& draw) {
  const unsigned changes = 1 + draw() % 8;
  for (unsigned i = 0; i < changes; ++i) bytes[draw() % bytes.size()] = static_cast<std::uint8_t>(draw());
  return bytes;
}

// Every operation, at these sizes.
inline Recipe recipe_of(int global_size, int local_size, int local_crops) {
  return {{0.4, 1.0},  {0.05, 0.4}, local_crops,
          global_size, local_size,  {{{0.6, 1.4}, {0.6, 1.4}, {0.8, 1.2}, {-0.1, 0.1}}}};
}

// A crop in memory of exactly its size.
inline Bytes cut(Cropper& cropper, const Picture& picture, const CropPlan& plan, Output output) {
  Bytes out(std::size_t{3} * static_cast<std::size_t>(plan.size * plan.size) * item_size(output));
  Stopwatch watch;
  cropper.cut(picture, plan, output, out.data(), watch);
  return out;
}

// A square of a resized picture, likewise.
inline Bytes resized(Cropper& cropper, const Picture& picture, const Resize& how) {
  Bytes out(std::size_t{3} * static_cast<std::size_t>(how.size * how.size));
  cropper.resize(picture, how, out.data());
  return out;
}

}  // namespace fastdino::testing
