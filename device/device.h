// Memory of a device behind one small interface: host memory for tests, CUDA where there is a GPU.
//
// Everything above it (budgets, tables, transfers, deaths of peers) is written and tested against
// this header; tests/device has the conformance suite that every implementation passes.
//
// Addresses are std::byte* of one address space (unified addressing): what lies in an extent can be
// read by the processor only where facts().kind is kHost. Everything here is thread-safe but
// DeviceStream, which one thread at a time may use. A Device outlives all that it made; extents and
// registrations outlive the copies that name them.
// Isolation: an extent belongs to one owner for its whole life. Create gives zeroes, destroying
// gives the bytes back to the device, and nothing here keeps extents for a second use.
// Errors name the call, the field and the bound. After a device is lost every call answers
// kUnavailable, and no buffer is touched any more by the time the first one has.
#ifndef KVASIR_DEVICE_DEVICE_H_
#define KVASIR_DEVICE_DEVICE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/posix.h"

// kernels/gather.h: this header is one of engines, too, and they need none of it.
namespace kvasir::kernels {
struct RopeShape;
}  // namespace kvasir::kernels

namespace kvasir::device {

enum class DeviceKind { kHost, kCuda };

// Constant for the life of a device.
struct DeviceFacts {
  std::string name;  // for people: "NVIDIA H100 80GB HBM3"
  std::string uuid;  // says the same device in every process: "GPU-8f3a..."; what peers compare
  DeviceKind kind = DeviceKind::kHost;
  uint64_t total_bytes = 0;
  uint64_t granularity_bytes = 0;  // an extent takes a multiple of it
  int compute_major = 0, compute_minor = 0;
  std::string driver;                   // version; empty: none is needed
  bool read_only_registration = false;  // RegisterHost() can promise never to write
};

struct CopyPiece {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  uint64_t bytes = 0;
};

// `rows` rows of `row_bytes`, each so far from the one before as its stride says (>= row_bytes).
struct StridedPiece {
  std::byte* dst = nullptr;
  uint64_t dst_stride = 0;
  const std::byte* src = nullptr;
  uint64_t src_stride = 0;
  uint64_t row_bytes = 0;
  uint64_t rows = 0;
};

// In place of the number of a turn: the row is copied bit for bit.
inline constexpr uint32_t kNoTurn = std::numeric_limits<uint32_t>::max();

struct RowMove {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  uint32_t turn = kNoTurn;  // which of the turns of its RowGather
};

// Rows of one size that lie anywhere. Key rows may be turned to other positions on the way (RoPE):
// a turn is the factors that kernels::MakeTurns() gives, and the row then has the bits that
// kernels::GatherRotateRows() would give it, on every device.
struct RowGather {
  std::span<const RowMove> rows;
  uint64_t row_bytes = 0;                    // 1 to 2^30
  const kernels::RopeShape* rope = nullptr;  // of all rows here; null: none is turned
  std::span<const float> turns;              // [turns][rope->rotated_dims]
};

// A word of shared memory by which streams of two processes wait for each other. Eight bytes,
// aligned, inside a writable RegisterHost() of each process that uses it. It only grows.
using DeviceWord = std::atomic<uint64_t>;

// A place in a stream. Thread-safe. Stays in this process: an event of CUDA that has been exported
// is undefined once its exporter has died, so what crosses the border is a DeviceWord.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // Whether all that was in the stream at the last Record() is done; true before the first.
  // Errors: kUnavailable, device lost. Cost: of CUDA about a microsecond; never waits.
  virtual absl::StatusOr<bool> Query() = 0;
  // Waits for it. Errors: as above. REQUIRES: a word that the stream waits for will come.
  virtual absl::Status Synchronize() = 0;
};

// Bytes of one owner. Move and share by fd, never by address.
class DeviceExtent {
 public:
  // Unmaps it. The one who created it gives the bytes back; the device has them again once the last
  // importer has, or is dead. REQUIRES: no stream still uses it.
  virtual ~DeviceExtent() = default;
  virtual uint64_t id() const = 0;  // as given to CreateExtent(); imported: 0
  virtual std::byte* address() const = 0;
  virtual uint64_t bytes() const = 0;          // as asked for
  virtual uint64_t charged_bytes() const = 0;  // rounded up to the granularity: what it costs
  virtual Access access() const = 0;
  // A descriptor by which another process imports it, as often as it is asked. Errors:
  // kFailedPrecondition of an imported extent: only its creator lends it.
  virtual absl::StatusOr<UniqueFd> ExportFd() const = 0;
};

// Work in order. Not thread-safe; the thread may change between calls. Calls put work behind what
// is there and return; arguments are checked before, so that a refused batch has done nothing.
class DeviceStream {
 public:
  // Waits for its work. Words that never came are released first (ReleaseWaits).
  virtual ~DeviceStream() = default;

  // In any direction, pieces in any order among themselves. Every address lies in a live extent or
  // in registered host memory of this device object. Errors: kInvalidArgument naming the piece,
  // kFailedPrecondition where the destination is read-only. Cost: a call for the batch where the
  // driver has one, else one a piece. The pieces may be freed on return.
  virtual absl::Status Copy(std::span<const CopyPiece> pieces) = 0;
  virtual absl::Status CopyStrided(std::span<const StridedPiece> pieces) = 0;
  // Rows of `dst` overlap neither each other nor rows of `src`; else as Copy(), errors naming the
  // gather and the row. What is pointed to may be freed on return. Errors: kInvalidArgument also
  // where row_bytes, rope, turns or a row's turn do not fit each other; kUnavailable where the
  // device has no code for it. Cost: of CUDA a copy of 20 bytes a row and of the turns, and a
  // kernel for each gather, on few of its processors' time where the stream is of low priority.
  virtual absl::Status GatherRows(std::span<const RowGather> gathers) = 0;
  // Zeroes an extent, up to charged_bytes(). Errors: kFailedPrecondition where it is read-only.
  virtual absl::Status Zero(const DeviceExtent& extent) = 0;

  virtual absl::Status Record(const std::shared_ptr<DeviceEvent>& event) = 0;
  // What is put in from now on begins after `event`, of a stream of the same device.
  virtual absl::Status Wait(const std::shared_ptr<DeviceEvent>& event) = 0;

  // Stores `value` once everything before is done and visible to whoever sees the value; wakes who
  // waits for it on a host device. Errors: kInvalidArgument (not registered, not aligned),
  // kFailedPrecondition (registered read-only).
  virtual absl::Status WriteWord(DeviceWord& word, uint64_t value) = 0;
  // What is put in from now on begins once word - at_least, as a signed number, is not negative.
  // No processor is needed in between. A word of a dead peer never comes: see ReleaseWaits(). Its
  // memory stays registered until the stream has passed it.
  virtual absl::Status WaitWord(DeviceWord& word, uint64_t at_least) = 0;
  // Writes, with the processor, into each word that this stream may still wait for what it waits
  // for. For when its writer has died. Cost: one store and one wake for each WaitWord in work.
  virtual void ReleaseWaits() = 0;

  // Waits for all of it. Errors: kUnavailable, device lost.
  virtual absl::Status Synchronize() = 0;
};

// Host memory that the device may reach; ends with this object. REQUIRES: no stream uses it then.
class HostRegistration {
 public:
  virtual ~HostRegistration() = default;
  // What was registered: `read_only` may be false though it was asked for (facts()).
  virtual bool read_only() const = 0;
};

enum class StreamPriority { kLowest, kNormal };

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceFacts& facts() const = 0;
  // Free now, of the whole device, others' use included. Errors: kUnavailable.
  virtual absl::StatusOr<uint64_t> FreeBytes() = 0;
  // OK, or kUnavailable for ever with why the device was lost.
  virtual absl::Status Health() = 0;

  // Zeroes, mapped writable here. `id` is the caller's, for its books. Errors: kInvalidArgument
  // (bytes is 0 or over total_bytes), kResourceExhausted with the figures. Cost: a mapping, and
  // writing the bytes once.
  virtual absl::StatusOr<std::unique_ptr<DeviceExtent>> CreateExtent(uint64_t bytes,
                                                                     uint64_t id) = 0;
  // Maps what another process, or this one, has exported. `access` is the importer's own choice and
  // protects it from its own mistakes alone (docs/adr/0033-device-memory.md). `bytes` is as the
  // creator asked. Errors: kInvalidArgument where `fd` is no such extent or of another size. Takes
  // no more of the device's memory.
  virtual absl::StatusOr<std::unique_ptr<DeviceExtent>> ImportExtent(UniqueFd fd, uint64_t bytes,
                                                                     Access access) = 0;

  virtual absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream(StreamPriority priority) = 0;
  virtual absl::StatusOr<std::shared_ptr<DeviceEvent>> MakeEvent() = 0;
  // Page aligned, touched or not; whole mappings of memfds are fine. Errors: kInvalidArgument
  // (alignment, overlap), kResourceExhausted. Cost: pins the pages: of CUDA some 100 us a MiB, so
  // never on the way of a request.
  virtual absl::StatusOr<std::unique_ptr<HostRegistration>> RegisterHost(std::byte* data,
                                                                         uint64_t bytes,
                                                                         bool read_only) = 0;
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_DEVICE_H_
