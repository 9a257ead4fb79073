#include "pool/pool.hpp"

#include <unistd.h>

#include <atomic>

namespace fastdino {
namespace {

// A batch on its way: what is claimed, what is done.
struct Job {
  explicit Job(Batch submitted) : batch(std::move(submitted)) {}

  Batch batch;
  int claimed = 0;
  int done = 0;
};

struct Claim {
  std::shared_ptr<Job> job;
  int slot;
  std::uint64_t index;
};

// What a thread keeps from picture to picture.
struct Desk {
  explicit Desk(PassOrder order) : cropper(order) {}

  JpegDecoder decoder;
  Cropper cropper;
  Picture picture;
  std::vector<std::uint8_t> bytes;
  std::string reason;
  Stopwatch watch;
};

constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

}  // namespace

struct Pool::State {
  State(PoolSettings chosen, std::shared_ptr<PictureSource> pictures)
      : settings(std::move(chosen)), source(std::move(pictures)) {}

  void work();
  void end();
  bool claim(std::unique_lock<std::mutex>& lock, Claim& claim);
  void prepare(const Claim& claim, Desk& desk);
  void crop(const Claim& claim, Desk& desk);
  bool load(std::uint64_t index, Desk& desk);
  bool known_unreadable(std::uint64_t index, std::string& reason);
  void finish(const Claim& claim);
  void book(Stopwatch& watch);

  const PoolSettings settings;
  const std::shared_ptr<PictureSource> source;
  const pid_t owner = getpid();

  std::mutex mutex;  // guards what follows, and the jobs in the queue
  std::condition_variable work_to_do, work_done;
  std::deque<std::shared_ptr<Job>> queue;
  int busy = 0;
  bool closing = false;
  std::mutex reading;  // held from claim to read where the source wants one reader at a time

  std::shared_mutex unreadable_mutex;
  std::map<std::uint64_t, std::string> unreadable;

  std::array<std::atomic<std::int64_t>, kStages> spent{};
  std::vector<std::thread> threads;
};

Pool::Pool(PoolSettings settings, std::shared_ptr<PictureSource> source) {
  kernels();  // throws here what no thread may throw
  state_ = std::make_unique<State>(std::move(settings), std::move(source));
  State& state = *state_;
  try {
    for (int i = 0; i < state.settings.threads; ++i) state.threads.emplace_back([&state] { state.work(); });
  } catch (...) {  // the system has no more threads
    state.end();
    throw;
  }
}

Pool::~Pool() {
  end();
  if (getpid() != state_->owner) static_cast<void>(state_.release());
}

void Pool::end() {
  if (getpid() == state_->owner) state_->end();
}

void Pool::State::end() {
  {
    const std::lock_guard lock(mutex);
    closing = true;
    queue.clear();
  }
  work_to_do.notify_all();
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
}

void Pool::submit(Batch batch) {
  batch.used.assign(static_cast<std::size_t>(batch.count), 0);
  {
    const std::lock_guard lock(state_->mutex);
    state_->queue.push_back(std::make_shared<Job>(std::move(batch)));
  }
  state_->work_to_do.notify_all();
}

std::unique_ptr<Batch> Pool::wait(int milliseconds) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const auto ready = [&] {
    return !state.queue.empty() && state.queue.front()->done == state.queue.front()->batch.count;
  };
  if (!state.work_done.wait_for(lock, std::chrono::milliseconds(milliseconds), ready)) return nullptr;
  auto batch = std::make_unique<Batch>(std::move(state.queue.front()->batch));
  state.queue.pop_front();
  return batch;
}

void Pool::cancel() {
  std::unique_lock lock(state_->mutex);
  state_->queue.clear();
  state_->work_done.wait(lock, [this] { return state_->busy == 0; });
}

std::array<double, kStages> Pool::spent() const {
  std::array<double, kStages> seconds{};
  for (std::size_t stage = 0; stage < kStages; ++stage) {
    seconds[stage] = static_cast<double>(state_->spent[stage].load(std::memory_order_relaxed)) * 1e-9;
  }
  return seconds;
}

const PoolSettings& Pool::settings() const {
  return state_->settings;
}

void Pool::State::work() {
  Desk desk(settings.pass_order);
  std::unique_lock lock(mutex);
  while (true) {
    Claim claimed;
    desk.watch.start();
    if (!claim(lock, claimed)) return;
    desk.watch.until_now(kIdle);
    lock.unlock();
    try {
      prepare(claimed, desk);
    } catch (...) {
      lock.lock();
      if (!claimed.job->batch.error) {
        claimed.job->batch.error = std::current_exception();
        claimed.job->batch.error_index = claimed.index;
      }
      lock.unlock();
    }
    book(desk.watch);
    lock.lock();
    finish(claimed);
  }
}

// The next sample of the oldest batch that has one left; false at the end. With a sequential source the
// caller holds `reading` on return.
bool Pool::State::claim(std::unique_lock<std::mutex>& lock, Claim& claim) {
  while (true) {
    if (settings.sequential) {
      // In this order, since the holder of `reading` needs `mutex` to claim.
      lock.unlock();
      reading.lock();
      lock.lock();
    }
    if (closing) break;
    for (const std::shared_ptr<Job>& job : queue) {
      if (job->claimed == job->batch.count) continue;
      claim = {job, job->claimed++, 0};
      ++busy;
      const std::uint64_t position = job->batch.first + static_cast<std::uint64_t>(claim.slot);
      claim.index = settings.sequential
                        ? position
                        : EpochOrder(settings.seed, job->batch.epoch, settings.pictures)[position];
      return true;
    }
    if (settings.sequential) reading.unlock();
    work_to_do.wait(lock);
  }
  if (settings.sequential) reading.unlock();
  return false;
}

void Pool::State::finish(const Claim& claim) {
  ++claim.job->done;
  --busy;
  work_done.notify_all();
}

void Pool::State::book(Stopwatch& watch) {
  for (std::size_t stage = 0; stage < kStages; ++stage) {
    spent[stage].fetch_add(watch.spent()[stage], std::memory_order_relaxed);
  }
  watch.reset();
}

// Loads the picture, or the next one after it that can be read, and cuts its crops.
void Pool::State::prepare(const Claim& claim, Desk& desk) {
  std::unique_lock<std::mutex> one_reader;
  if (settings.sequential) one_reader = std::unique_lock(reading, std::adopt_lock);
  for (std::uint64_t offset = 0; offset < settings.pictures; ++offset) {
    const std::uint64_t candidate = (claim.index + offset) % settings.pictures;
    if (!known_unreadable(candidate, desk.reason) && load(candidate, desk)) {
      claim.job->batch.used[static_cast<std::size_t>(claim.slot)] = candidate;
      if (one_reader) one_reader.unlock();
      crop(claim, desk);
      return;
    }
    const std::lock_guard lock(mutex);
    claim.job->batch.skipped.emplace_back(candidate, desk.reason);
  }
  const std::lock_guard lock(mutex);
  claim.job->batch.unreadable = true;
}

bool Pool::State::known_unreadable(std::uint64_t index, std::string& reason) {
  const std::shared_lock lock(unreadable_mutex);
  const auto found = unreadable.find(index);
  if (found == unreadable.end()) return false;
  reason = found->second;
  return true;
}

bool Pool::State::load(std::uint64_t index, Desk& desk) {
  desk.watch.start();
  bool loaded = source->read(index, desk.bytes, desk.reason);
  desk.watch.until_now(kRead);
  if (loaded && !desk.decoder.decode(desk.bytes.data(), desk.bytes.size(), desk.picture)) {
    desk.watch.until_now(kDecode);
    loaded = source->decode(desk.bytes, desk.picture, desk.reason);
    desk.watch.until_now(kPillow);
  }
  desk.watch.until_now(kDecode);
  if (!loaded) {
    const std::lock_guard lock(unreadable_mutex);
    unreadable.emplace(index, desk.reason);
  }
  return loaded;
}

void Pool::State::crop(const Claim& claim, Desk& desk) {
  const Batch& batch = claim.job->batch;
  for (int crop = 0; crop < settings.recipe.crops(); ++crop) {
    const CropPlan plan = draw_crop(settings.recipe, settings.seed, batch.epoch, claim.index, crop,
                                    desk.picture.width(), desk.picture.height());
    const std::size_t elements =
        std::size_t{3} * static_cast<std::size_t>(plan.size) * static_cast<std::size_t>(plan.size);
    const std::size_t offset = static_cast<std::size_t>(claim.slot) * elements * item_size(settings.output);
    auto* out = static_cast<std::uint8_t*>(batch.crops[static_cast<std::size_t>(crop)]) + offset;
    desk.cropper.cut(desk.picture, plan, settings.output, out, desk.watch);
  }
  desk.picture.shrink();
  if (desk.bytes.capacity() > kKeptBytes) std::vector<std::uint8_t>().swap(desk.bytes);
}

}  // namespace fastdino
