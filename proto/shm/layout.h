// The bytes that one session and the daemon share in memory, ABI 8. docs/shm_protocol.md has the
// states, the memory orders, and what happens when either side dies between two stores.
//
// Two segments a session. D: written by the daemon, mapped read-only by the engine. E: written by
// the engine; the daemon copies a word once and judges the copy. Offsets are in bytes from the
// segment's start; no pointers; little endian; reserved bytes are zero. `A32`/`A64` are naturally
// aligned atomics.
//
// kAbiVersion rises with any change of offset, size, meaning or order of these fields.
#ifndef KVASIR_PROTO_SHM_LAYOUT_H_
#define KVASIR_PROTO_SHM_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kvasir::shm {

inline constexpr uint32_t kAbiVersion = 8;
inline constexpr uint64_t kDaemonMagic = 0x314D48535F53564BULL;  // "KVS_SHM1"
inline constexpr uint64_t kEngineMagic = 0x31474E455F53564BULL;  // "KVS_ENG1"
inline constexpr uint64_t kHeaderBytes = 4096;
inline constexpr uint64_t kArenaUnit = 64;  // every table starts at a multiple

using A32 = std::atomic<uint32_t>;
using A64 = std::atomic<uint64_t>;
static_assert(A32::is_always_lock_free && A64::is_always_lock_free);
static_assert(sizeof(A32) == 4 && sizeof(A64) == 8);

enum class SessionState : uint32_t { kOpen = 1, kEnded = 2 };
enum class EndReason : uint32_t { kNone = 0, kViolation = 1, kMemoryTakenBack = 2 };

// Start of the D segment. Constant after the hand-over, but for what begins at offset 128.
struct DaemonHeader {
  uint64_t magic;
  uint32_t abi;
  uint32_t header_bytes;
  uint64_t segment_bytes;
  uint64_t boot_epoch;   // random, other for every start of the daemon
  uint64_t layout_hash;  // kLayoutHash of layout_hash.h
  uint32_t session_id;
  uint32_t seq_max;    // boards and desks
  uint64_t seq_off;    // SeqBoard[seq_max]
  uint64_t arena_off;  // tables
  uint64_t arena_bytes;
  uint64_t e_desk_off;  // SeqDesk[seq_max] in the E segment
  uint64_t e_segment_bytes;
  uint8_t reserved0[40];
  A32 session_state;  // offset 128: kEnded before any block of the session changes hands
  A32 end_reason;     // EndReason; before session_state
  A64 wanted_back;    // bytes of lent memory that the tenant is to give back now; 0: none
  uint8_t reserved1[48];
};
static_assert(sizeof(DaemonHeader) == 192 && std::is_standard_layout_v<DaemonHeader>);
static_assert(offsetof(DaemonHeader, session_state) == 128);
static_assert(offsetof(DaemonHeader, wanted_back) == 136);

// Start of the E segment.
struct EngineHeader {
  uint64_t magic;
  uint8_t reserved[56];
};
static_assert(sizeof(EngineHeader) == 64);

// One version of a sequence's table. Written before SeqBoard::published names it, then constant
// until the version after the next one is prepared.
struct VersionDesc {
  uint64_t version;
  uint64_t from_row;   // first query that uses it
  uint64_t until_row;  // first query that must not use it
  uint64_t lanes_off;  // LaneSpan[lanes], in D
  uint32_t lanes;
  uint32_t flags;  // 0
  uint8_t reserved[24];
};
static_assert(sizeof(VersionDesc) == 64);

// kTakenBack: the daemon has ended the sequence, because others wanted its memory.
enum class BoardState : uint32_t { kFree = 0, kOpen = 1, kTakenBack = 2 };

// What the daemon says about a sequence.
struct SeqBoard {
  A64 published;  // newest version; release after its descriptor, spans and runs
  A64 granted;    // rows that may be written; release after the directory entries
  A32 uid;        // of the sequence's current life; 0 before any of its blocks changes hands
  A32 state;      // BoardState
  uint32_t slots_per_block;
  uint32_t lanes;
  uint64_t dir_off;    // RecentRef[lanes][dir_cap]
  uint32_t dir_cap;    // blocks
  uint32_t low_water;  // rows: ask for more when fewer are granted ahead
  uint64_t consumed;   // rows whose ids the daemon has taken, for people
  // 1: the tenant is short of memory and this sequence should be saved and closed, if it can be;
  // a hint, relaxed.
  A32 suspend_wanted;
  uint8_t reserved[4];
  VersionDesc v[2];  // index = version & 1
};
static_assert(sizeof(SeqBoard) == 192 && offsetof(SeqBoard, v) == 64);

// What the engine says about a sequence.
struct SeqDesk {
  A64 rows;     // rows written, ids included; release after them
  A64 adopted;  // version in use; release after the last read of an older one
  A32 uid;      // release, after rows and adopted: lines of an earlier life are ignored
  uint8_t reserved[44];
};
static_assert(sizeof(SeqDesk) == 64);

// One lane of one version.
struct LaneSpan {
  uint64_t runs_off;    // RunEntry[runs]
  uint64_t sticky_off;  // u64[sticky]
  uint32_t runs;
  uint32_t sticky;
  uint64_t kept_rows;  // sum over the runs
  uint64_t window;     // rows, the query's own included; 0: all
  uint64_t recent_first;
  uint64_t records_from;  // first row that runs of kRunWindowed may show
  uint8_t reserved[8];
};
static_assert(sizeof(LaneSpan) == 64);

// How the rows of a run's group lie: as written, slot by slot; as records of the sequence's format
// (proto/kvasir/v1, LaneRecords), one for each layer, plane and kv head; or slot by slot with V in
// the lane's code (LaneValueCodes).
enum class RunEncoding : uint16_t { kAsWritten = 0, kRecords = 1, kCodedValues = 2 };

// Slot s holds row first_row + s of the stream, visible as far as the window reaches and not below
// records_from; not one of the kept rows. Without it: all slots of the run are visible.
inline constexpr uint16_t kRunWindowed = 1;

// Consecutive slots of one filled group.
struct RunEntry {
  uint32_t extent;       // slot of the session's extent table
  uint32_t generation;   // of that slot
  uint64_t group_off;    // of the group in the extent
  uint32_t group_slots;  // slots of each plane of the group
  uint32_t first_slot;
  uint32_t rows;
  uint16_t encoding;     // RunEncoding
  uint16_t flags;        // kRunWindowed or 0
  int64_t query_offset;  // query position for these keys = min(row - query_offset, query_max)
  uint64_t query_max;
  uint64_t first_row;  // kRunWindowed: of slot 0; else 0
  uint8_t reserved[8];
};
static_assert(sizeof(RunEntry) == 64);

// Where a block of recent rows lies. Row p of lane l: dir[l * dir_cap + (p / S) % dir_cap], slot p
// % S.
struct RecentRef {
  uint32_t extent;
  uint32_t generation;
  uint64_t group_off;
};
static_assert(sizeof(RecentRef) == 16);

// ---- data.sock, SOCK_SEQPACKET
// -------------------------------------------------------------------- The engine sends one Hello;
// the daemon answers one Welcome (with the fds of D, E and the doorbell) or one Refusal, then
// ExtentNotice messages (each with one fd) and DeviceExtentNotice messages (each with two).
// Anything else from the engine ends the session.
inline constexpr uint64_t kHelloMagic = 0x314F4C48535F564BULL;  // "KV_SHLO1"

enum class MessageKind : uint32_t {
  kHello = 1,
  kWelcome = 2,
  kRefusal = 3,
  kExtent = 4,
  kDeviceExtent = 5
};
enum class ExtentKind : uint32_t { kRecent = 1, kKept = 2 };

struct Hello {
  uint64_t magic;
  uint32_t kind;  // MessageKind::kHello
  uint32_t abi_min;
  uint32_t abi_max;
  uint32_t reserved;
};
static_assert(sizeof(Hello) == 24);

struct Welcome {
  uint32_t kind;
  uint32_t abi;
  uint64_t boot_epoch;
  uint64_t d_bytes;
  uint64_t e_bytes;
  uint8_t token[16];  // of the session; goes with every gRPC call
  uint32_t session_id;
  uint32_t reserved;
};
static_assert(sizeof(Welcome) == 56);

struct Refusal {
  uint32_t kind;
  int32_t code;  // google.rpc.Code
  uint32_t abi_min;
  uint32_t abi_max;
  char text[240];  // zero-terminated
};
static_assert(sizeof(Refusal) == 256);

struct ExtentNotice {
  uint32_t kind;
  uint32_t extent_kind;  // ExtentKind
  uint32_t slot;
  uint32_t generation;
  uint64_t bytes;
  uint64_t extent_id;
};
static_assert(sizeof(ExtentNotice) == 32);

enum class DeviceKind : uint32_t { kHost = 1, kCuda = 2 };

// A pair: trailers of groups in host memory (the first fd), rows of the same groups in the memory
// of a device (the second fd). Group i lies at i * group_bytes of the one and at i * trailer_bytes
// of the other; offsets in tables are those of the device's memory.
struct DeviceExtentNotice {
  uint32_t kind;
  uint32_t extent_kind;  // ExtentKind
  uint32_t slot;
  uint32_t generation;
  uint64_t bytes;  // of the trailers: groups * trailer_bytes
  uint64_t extent_id;
  uint64_t rows_bytes;         // of the device's memory: groups * group_bytes
  uint64_t granularity_bytes;  // its allocation is rows_bytes, rounded up to a multiple of it
  uint64_t group_bytes;
  uint64_t trailer_bytes;
  uint32_t device_kind;  // DeviceKind
  uint32_t reserved;
  char device_uuid[48];  // zero-terminated; the same in every process
};
static_assert(sizeof(DeviceExtentNotice) == 120);

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_LAYOUT_H_
