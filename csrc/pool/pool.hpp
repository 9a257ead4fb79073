#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "crop/cropper.hpp"
#include "crop/picture.hpp"
#include "crop/plan.hpp"
#include "crop/stages.hpp"
#include "jpeg/decoder.hpp"
#include "pool/order.hpp"

namespace fastdino {

// Where the pool's pictures come from. All of it is called from several threads at a time.
class PictureSource {
 public:
  virtual ~PictureSource() = default;
  // The undecoded picture into `bytes`; otherwise false and why in `reason`. May throw.
  virtual bool read(std::uint64_t index, std::vector<std::uint8_t>& bytes, std::string& reason) = 0;
  // What libjpeg-turbo could not decode, by other means.
  virtual bool decode(const std::vector<std::uint8_t>& bytes, Picture& picture, std::string& reason) = 0;
};

// What is fixed for the life of a pool.
struct PoolSettings {
  Recipe recipe;
  std::uint64_t seed;
  std::uint64_t pictures;
  int threads;
  PassOrder pass_order;
  Output output;
  bool sequential;  // the order of an epoch is the source's, and reads come one after another in that order
};

// `count` consecutive positions of an epoch, to be prepared in memory that the caller keeps until they are
// done.
struct Batch {
  std::uint64_t epoch;
  std::uint64_t first;
  int count;
  std::vector<void*> crops;  // one (count, 3, size, size) block a crop

  std::vector<std::uint64_t> used;                             // the picture that each sample came from
  std::vector<std::pair<std::uint64_t, std::string>> skipped;  // pictures passed over, and why
  std::exception_ptr error;
  std::uint64_t error_index = 0;
  bool unreadable = false;  // there is not one readable picture
};

// Threads that read, decode and crop pictures, batch after batch in the order in which they were submitted.
// What comes out depends on the settings and the batch alone.
class Pool {
 public:
  Pool(PoolSettings settings, std::shared_ptr<PictureSource> source);
  // Ends the threads. In a process that was forked off, where they do not exist, it leaves everything as it
  // is.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  void submit(Batch batch);
  // The oldest batch if it is done, or gets done before `milliseconds` are over; nullptr otherwise.
  std::unique_ptr<Batch> wait(int milliseconds);
  // Ends the threads, and whatever they were preparing with them.
  void end();
  // Forgets all batches; nothing is written into their memory any more when it returns.
  void cancel();

  // Seconds of all threads together since the start, by stage.
  std::array<double, kStages> spent() const;
  const PoolSettings& settings() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdino
