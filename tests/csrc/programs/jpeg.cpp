// Reads the header of every file named on the command line and transcodes it: whole, cut at every length and
// with bytes changed.
#include <cstdio>
#include <random>
#include <stdexcept>

#include "jpeg/header.hpp"
#include "jpeg/transcode.hpp"
#include "programs/support.hpp"

namespace {

using namespace fastdino::testing;

constexpr int kDamagedHeaders = 1500, kDamagedPictures = 60;
constexpr std::size_t kCuts = 60;

template <typename Function>
bool accepts(Function function, const Bytes& bytes) {
  const Bytes exact(bytes);
  try {
    function(exact.data(), exact.size());
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// Damage may make a small file claim to be a large picture, of which there is nothing new to learn.
bool transcodes(const Bytes& bytes) {
  constexpr int kMostPixels = 1 << 18;
  bool small = false;
  const auto read = [&](const std::uint8_t* data, std::size_t size) {
    const fastdino::JpegHeader header = fastdino::read_jpeg_header(data, size);
    small = header.width <= kMostPixels / header.height;
  };
  return accepts(read, bytes) && small && accepts(fastdino::to_baseline, bytes);
}

}  // namespace

int main(int count, char** paths) {
  std::mt19937 draw(0);
  int read = 0, refused = 0, transcoded = 0;
  for (const Bytes& file : read_files(count, paths)) {
    require(accepts(fastdino::read_jpeg_header, file), "the header of a good file was refused");
    require(transcodes(file), "a good file was not transcoded");
    const auto try_header = [&](const Bytes& bytes) {
      ++(accepts(fastdino::read_jpeg_header, bytes) ? read : refused);
    };
    for (std::size_t length = 0; length < file.size(); ++length) try_header(cut_at(file, length));
    for (int copy = 0; copy < kDamagedHeaders; ++copy) try_header(damaged(file, draw));
    for (std::size_t cut = 0; cut < kCuts; ++cut)
      transcoded += transcodes(cut_at(file, file.size() * cut / kCuts));
    for (int copy = 0; copy < kDamagedPictures; ++copy) transcoded += transcodes(damaged(file, draw));
  }
  require(read > 0 && refused > 0 && transcoded > 0, "damage was always, or never, seen");
  std::printf("jpeg: %d files whole; damaged: %d headers read, %d refused, %d transcoded\n", count - 1, read,
              refused, transcoded);
}
