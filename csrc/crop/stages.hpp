#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace fastdino {

// Where the time of the decoding threads goes.
enum Stage : std::size_t { kRead, kDecode, kPillow, kResample, kColor, kBlur, kStore, kIdle, kStages };
constexpr std::array<const char*, kStages> kStageNames = {"read",  "decode", "pillow", "resample",
                                                          "color", "blur",   "store",  "idle"};

// Nanoseconds by stage. `until_now` books the time since the last booking.
class Stopwatch {
 public:
  void start() { last_ = Clock::now(); }
  void until_now(Stage stage) {
    const Clock::time_point now = Clock::now();
    spent_[stage] += std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count();
    last_ = now;
  }
  const std::array<std::int64_t, kStages>& spent() const { return spent_; }
  void reset() { spent_.fill(0); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  std::array<std::int64_t, kStages> spent_{};
};

}  // namespace fastdino
