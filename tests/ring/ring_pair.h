// A ring with both its ends, each on mappings of its own: the daemon's writable, the engine's D
// read-only, as between processes.
#ifndef KVASIR_TESTS_RING_RING_PAIR_H_
#define KVASIR_TESTS_RING_RING_PAIR_H_

#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mapped_region.h"
#include "ring/commands.h"
#include "ring/completion_consumer.h"
#include "ring/doorbell.h"
#include "ring/submission_consumer.h"
#include "ring/submission_producer.h"

namespace kvasir::ring {

// 32 random bits at a time; the standard's own have the type of a long.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t operator()() { return static_cast<uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

inline constexpr uint64_t kTestEpoch = 0x1122334455667788;
inline constexpr uint32_t kTestSequences = 8;

inline shm::RingSizes SmallSizes() {
  return {.submission_entries = 4,
          .completion_entries = 4,
          .payload_area_bytes = 4096,
          .answer_area_bytes = 4096,
          .engine_spin_ns = 0,
          .first_entry = 0xFFFFFFFE};
}

// The two segments, as descriptors: a forked child maps them anew.
struct RingSegments {
  explicit RingSegments(const shm::RingSizes& sizes)
      : geometry(
            shm::RingGeometryFor(sizes, shm::kHeaderBytes, shm::kHeaderBytes, kTestSequences)) {
    const shm::RingSegmentBytes bytes = shm::RingSegmentBytesFor(sizes);
    d_bytes = shm::kHeaderBytes + bytes.d;
    e_bytes = shm::kHeaderBytes + bytes.e;
    d_fd = UniqueFd(::memfd_create("ring-test-d", MFD_CLOEXEC));
    e_fd = UniqueFd(::memfd_create("ring-test-e", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(d_fd.get(), static_cast<off_t>(d_bytes)), 0);
    EXPECT_EQ(::ftruncate(e_fd.get(), static_cast<off_t>(e_bytes)), 0);
  }

  static MappedRegion Map(const UniqueFd& fd, uint64_t bytes, Access access) {
    absl::StatusOr<MappedRegion> region = MappedRegion::Map(fd, bytes, access);
    EXPECT_TRUE(region.ok()) << region.status();
    return *std::move(region);
  }

  shm::RingGeometry geometry;
  uint64_t d_bytes = 0, e_bytes = 0;
  UniqueFd d_fd, e_fd;
};

// The daemon's end.
struct DaemonEnd {
  explicit DaemonEnd(const RingSegments& segments, TurnLimits limits = {})
      : d(RingSegments::Map(segments.d_fd, segments.d_bytes, Access::kReadWrite)),
        e(RingSegments::Map(segments.e_fd, segments.e_bytes, Access::kReadWrite)),
        memory(DaemonRingMemory::Create(segments.geometry, kTestEpoch, d.data(), e.data())),
        completions(memory),
        submissions(memory, completions, limits),
        buffer(segments.geometry.PayloadBytesMax() / 8) {
    reinterpret_cast<shm::DaemonHeader*>(d.data())->boot_epoch = kTestEpoch;
  }

  absl::StatusOr<Taken> Take(Command* command) {
    return submissions.Take(command, std::as_writable_bytes(std::span(buffer)));
  }
  // The next command of a turn of its own. Fails the test when there is none.
  Command TakeOne() {
    Command command;
    EXPECT_TRUE(submissions.BeginTurn().ok());
    const absl::StatusOr<Taken> taken = Take(&command);
    EXPECT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(*taken, Taken::kCommand);
    return command;
  }

  MappedRegion d, e;
  DaemonRingMemory memory;
  CompletionProducer completions;
  SubmissionConsumer submissions;
  std::vector<uint64_t> buffer;
};

// The engine's end.
struct EngineEnd {
  EngineEnd(const RingSegments& segments, int doorbell, WaitOptions wait)
      : d(RingSegments::Map(segments.d_fd, segments.d_bytes, Access::kReadOnly)),
        e(RingSegments::Map(segments.e_fd, segments.e_bytes, Access::kReadWrite)),
        memory(*EngineRingMemory::Open(d.data(), d.bytes(), e.data(), e.bytes())),
        submissions(memory, credit, doorbell),
        completions(memory, credit, std::move(wait)) {}

  MappedRegion d, e;
  EngineRingMemory memory;
  RingCredit credit;
  SubmissionProducer submissions;
  CompletionConsumer completions;
};

inline WaitOptions NeverGone() {
  return {.spin = std::chrono::nanoseconds(0), .slice = std::chrono::hours(1), .peer_is_gone = [] {
            return false;
          }};
}

struct RingPair {
  explicit RingPair(const shm::RingSizes& sizes = SmallSizes(), TurnLimits limits = {})
      : segments(sizes),
        doorbell(*MakeDoorbell()),
        daemon(segments, limits),
        engine(segments, doorbell.get(), NeverGone()) {}

  // Fails the test when there is no room.
  void Submit(const shm::SubmissionEntry& entry, std::span<const std::byte> payload = {}) {
    const absl::StatusOr<bool> submitted = engine.submissions.Submit(entry, std::span(&payload, 1));
    ASSERT_TRUE(submitted.ok()) << submitted.status();
    ASSERT_TRUE(*submitted);
  }
  // The next completion, done with, and its answer.
  std::pair<shm::CompletionEntry, std::vector<std::byte>> Read() {
    Completion completion;
    const absl::StatusOr<bool> there = engine.completions.Next(&completion);
    EXPECT_TRUE(there.ok()) << there.status();
    if (!there.ok() || !*there) {
      ADD_FAILURE() << "no completion";
      return {};
    }
    std::vector<std::byte> answer(completion.entry.answer_bytes);
    completion.CopyAnswer(answer);
    engine.completions.Done();
    return {completion.entry, std::move(answer)};
  }

  // Where a test writes what an engine's library never would.
  shm::EngineRingWords& engine_words() { return *engine.memory.engine_words; }
  shm::SubmissionEntry& Entry(uint32_t counter) {
    return reinterpret_cast<shm::SubmissionEntry*>(
        engine.memory.submissions)[counter % segments.geometry.submission_entries];
  }
  // Writes an entry as it is, and the tail.
  void SubmitRaw(const shm::SubmissionEntry& entry) {
    const uint32_t tail = engine_words().sq_tail.load();
    Entry(tail) = entry;
    engine_words().sq_tail.store(tail + 1);
  }

  RingSegments segments;
  UniqueFd doorbell;
  DaemonEnd daemon;
  EngineEnd engine;
};

inline std::string TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace kvasir::ring

#endif  // KVASIR_TESTS_RING_RING_PAIR_H_
