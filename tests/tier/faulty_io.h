// FaultyIo: a BlockIo whose requests fail as a test says.
#ifndef KVASIR_TESTS_TIER_FAULTY_IO_H_
#define KVASIR_TESTS_TIER_FAULTY_IO_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "allocator/tier/block_io.h"
#include "base/check.h"
#include "base/error.h"

namespace kvasir::testing {

// What happens to the requests; shared by the test and the tier. Set it only between calls.
struct Faults {
  // Result of a request in place of the disk's; nothing: as the disk says.
  std::function<std::optional<int64_t>(bool write)> request = [](bool) { return std::nullopt; };
  int sync = 0;            // result of every fdatasync, if not 0
  bool no_queues = false;  // OpenQueue() fails
  int syncs = 0;           // how many there were
};

class FaultyIo final : public BlockIo {
 public:
  explicit FaultyIo(std::shared_ptr<Faults> faults)
      : faults_(std::move(faults)), io_(MakeSystemIo()) {}

  absl::StatusOr<std::unique_ptr<IoQueue>> OpenQueue(uint32_t depth) override {
    if (faults_->no_queues) return ResourceExhausted("no queue");
    auto queue = io_->OpenQueue(depth);
    KVASIR_CHECK(queue.ok(), "queue: {}", MessageOf(queue.status()));
    return std::make_unique<Queue>(faults_, *std::move(queue));
  }
  int Sync(int fd) override {
    ++faults_->syncs;
    return faults_->sync != 0 ? faults_->sync : io_->Sync(fd);
  }

 private:
  class Queue final : public IoQueue {
   public:
    Queue(std::shared_ptr<Faults> faults, std::unique_ptr<IoQueue> queue)
        : faults_(std::move(faults)), queue_(std::move(queue)) {}
    bool Submit(const IoRequest& request) override {
      // One that fails does not reach the disk.
      const std::optional<int64_t> result = faults_->request(request.write);
      if (!result) return queue_->Submit(request);
      failed_.push_back({request.tag, *result});
      return true;
    }
    IoDone Wait() override {
      if (failed_.empty()) return queue_->Wait();
      const IoDone done = failed_.back();
      failed_.pop_back();
      return done;
    }

   private:
    std::shared_ptr<Faults> faults_;
    std::unique_ptr<IoQueue> queue_;
    std::vector<IoDone> failed_;
  };

  std::shared_ptr<Faults> faults_;
  std::unique_ptr<BlockIo> io_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_FAULTY_IO_H_
