// FaultBoard: what goes wrong in a process that runs under the fault layer, in a file that the test
// and the process both map. The test sets it while the process runs.
//
// Thread-safe: atomics that publish nothing else, so all orders are relaxed.
#ifndef KVASIR_TESTS_FAULTS_FAULT_BOARD_H_
#define KVASIR_TESTS_FAULTS_FAULT_BOARD_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kvasir::testing {

// Calls on the files of a disk tier: its segments, by system calls and by io_uring alike, and
// those of its index.
enum class FaultPlace : size_t {
  kSegmentRead,
  kSegmentWrite,
  kSegmentSync,
  kSegmentReserve,
  kIndexRead,
  kIndexWrite,
  kIndexSync,
};
inline constexpr size_t kFaultPlaces = 7;

// Instead of an errno: a transfer moves half of what it was to, or nothing.
inline constexpr int kShortTransfer = -1;

struct FaultBoard {
  struct Place {
    std::atomic<int> error{0};        // errno of the call; 0: the call is left alone
    std::atomic<int64_t> spared{0};   // so many calls are left alone before
    std::atomic<uint64_t> struck{0};  // calls that were not left alone
  };
  std::array<Place, kFaultPlaces> places;
  std::atomic<bool> without_uring{false};  // io_uring_queue_init() fails
  std::atomic<bool> hold_reads{false};     // reads of segments do not return
  std::atomic<uint64_t> held{0};           // that were ever held

  // CLOCK_REALTIME and all that is read by it or waits by it.
  std::atomic<int64_t> clock_offset_s{0};
  // Readings by clock_gettime(), as ours and gRPC's are, are off by the offset, forward and back in
  // turns. Not those of gettimeofday() and time(): RocksDB's timer would never find a time to wait
  // for, and spin.
  std::atomic<bool> clock_restless{false};
  std::atomic<uint64_t> clock_readings{0};

  Place& at(FaultPlace place) { return places[static_cast<size_t>(place)]; }
};
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// Names the board's file to the layer.
inline constexpr char kFaultBoardVariable[] = "KVASIR_FAULT_BOARD";

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_FAULTS_FAULT_BOARD_H_
