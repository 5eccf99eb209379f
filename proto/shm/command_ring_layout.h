// The bytes of the command ring: requests of one session and their answers, in the session's two
// segments. docs/shm_protocol.md, "The command ring", has the states, the memory orders, and what
// happens when either side dies between two stores.
//
// Single producer and single consumer in both directions. The engine writes SubmissionEntry, the
// payload area and EngineRingWords, all in E; the daemon writes CompletionEntry, the answer area
// and DaemonRingWords, all in D. Every submission gets exactly one completion, in any order.
// Offsets are in bytes from the segment's start; little endian; reserved bytes are zero. Entry
// counters are u32 and wrap; entry n lies at index n % entries.
#ifndef KVASIR_PROTO_SHM_COMMAND_RING_LAYOUT_H_
#define KVASIR_PROTO_SHM_COMMAND_RING_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include <absl/status/status.h>

#include "base/bytes.h"
#include "proto/shm/layout.h"

namespace kvasir::shm {

// Payloads and answers begin at multiples of it.
inline constexpr uint32_t kRingUnit = 64;
inline constexpr uint32_t kRingEntriesMin = 2;
inline constexpr uint32_t kRingEntriesMax = 4096;
inline constexpr uint32_t kRingAreaBytesMin = 4096;
inline constexpr uint32_t kRingAreaBytesMax = 16U << 20;
// Of one payload and of one answer; smaller where the area is.
inline constexpr uint32_t kRingPayloadBytesMax = 256U << 10;
inline constexpr uint32_t kRingAnswerBytesMax = 256U << 10;
// Of the text of a failure. Every submission reserves at least as much of the answer area.
inline constexpr uint32_t kRingErrorTextBytesMax = 512;

// What a submission asks for. Numbers are never used again with another meaning. Any other number,
// those that are set aside included, is a violation.
enum class CommandOp : uint8_t {
  kSync = 1,           // of one sequence: look at its desk (rows, adoption), grant, wait
  kSyncMany = 2,       // of 1 to 1024 sequences
  kPublishPrefix = 3,  // seal the rows so far and offer them to later sequences
  // 4: a compaction by the engine's own plan. Set aside: policies of the daemon plan.
  kMatchPrefix = 5,
  kRetrieve = 6,
  kCloseSequence = 7,
  // 8: a report of attention mass. Set aside: mass lies in shared memory and needs no call.
  kTruncate = 9,
};

// SubmissionEntry::flags of kSync and SyncNeedRecord::flags: `table_row` counts.
inline constexpr uint8_t kSyncHasTableRow = 1;

struct SubmissionEntry {
  uint8_t op;     // CommandOp
  uint8_t flags;  // kSyncHasTableRow or 0
  uint16_t reserved0;
  uint32_t seq;        // slot of the board; 0 where the op is of no one sequence
  uint64_t user_data;  // comes back in the completion; the daemon never looks at it
  uint32_t seq_uid;
  uint32_t payload_off;       // in the payload area, a multiple of kRingUnit; 0 without a payload
  uint32_t payload_bytes;     // goes on at the area's start when it meets its end
  uint32_t deadline_ms;       // the daemon answers at the latest after it; 0: nothing is waited for
  uint64_t arg[3];            // of the op (command_payload.h)
  uint32_t answer_bytes_max;  // room that the engine keeps for the answer
  uint32_t reserved1;
};
static_assert(sizeof(SubmissionEntry) == 64 && std::is_standard_layout_v<SubmissionEntry>);
static_assert(offsetof(SubmissionEntry, op) == 0 && offsetof(SubmissionEntry, flags) == 1);
static_assert(offsetof(SubmissionEntry, reserved0) == 2 && offsetof(SubmissionEntry, seq) == 4);
static_assert(offsetof(SubmissionEntry, user_data) == 8);
static_assert(offsetof(SubmissionEntry, seq_uid) == 16);
static_assert(offsetof(SubmissionEntry, payload_off) == 20);
static_assert(offsetof(SubmissionEntry, payload_bytes) == 24);
static_assert(offsetof(SubmissionEntry, deadline_ms) == 28);
static_assert(offsetof(SubmissionEntry, arg) == 32);
static_assert(offsetof(SubmissionEntry, answer_bytes_max) == 56);
static_assert(offsetof(SubmissionEntry, reserved1) == 60);

struct CompletionEntry {
  uint64_t user_data;
  int32_t status;       // google.rpc.Code; not 0: the answer is its text
  uint32_t detail;      // kOutOfRange for want of room: bytes that the answer needs; else 0
  uint64_t boot_epoch;  // of the daemon, as in its header
  uint64_t result[3];   // of the op
  uint32_t retry_ms;    // with kResourceExhausted: when to ask again
  uint32_t answer_off;  // in the answer area, a multiple of kRingUnit; 0 without an answer
  uint32_t answer_bytes;
  uint32_t answer_bytes_max;  // the submission's, so that the engine can give up its room
};
static_assert(sizeof(CompletionEntry) == 64 && std::is_standard_layout_v<CompletionEntry>);
static_assert(offsetof(CompletionEntry, user_data) == 0 && offsetof(CompletionEntry, status) == 8);
static_assert(offsetof(CompletionEntry, detail) == 12);
static_assert(offsetof(CompletionEntry, boot_epoch) == 16);
static_assert(offsetof(CompletionEntry, result) == 24);
static_assert(offsetof(CompletionEntry, retry_ms) == 48);
static_assert(offsetof(CompletionEntry, answer_off) == 52);
static_assert(offsetof(CompletionEntry, answer_bytes) == 56);
static_assert(offsetof(CompletionEntry, answer_bytes_max) == 60);

// Where the ring lies and how large its parts are. Constant after the hand-over. The engine copies
// it once and checks the copy; the daemon has its own and never reads it back.
struct RingGeometry {
  uint64_t completions_off;  // CompletionEntry[completion_entries], in D
  uint64_t answers_off;      // in D
  uint64_t submissions_off;  // SubmissionEntry[submission_entries], in E
  uint64_t payloads_off;     // in E
  uint32_t submission_entries;
  uint32_t completion_entries;
  uint32_t answer_area_bytes;
  uint32_t payload_area_bytes;
  uint32_t seq_max;         // of the session's header
  uint32_t engine_spin_ns;  // how long the engine should look before it sleeps
  uint32_t first_entry;     // what all four counters are at the hand-over
  uint32_t reserved;

  uint32_t PayloadBytesMax() const {
    return payload_area_bytes < kRingPayloadBytesMax ? payload_area_bytes : kRingPayloadBytesMax;
  }
  uint32_t AnswerBytesMax() const {
    return answer_area_bytes < kRingAnswerBytesMax ? answer_area_bytes : kRingAnswerBytesMax;
  }
};
static_assert(sizeof(RingGeometry) == 64 && std::is_standard_layout_v<RingGeometry>);
static_assert(offsetof(RingGeometry, completions_off) == 0);
static_assert(offsetof(RingGeometry, answers_off) == 8);
static_assert(offsetof(RingGeometry, submissions_off) == 16);
static_assert(offsetof(RingGeometry, payloads_off) == 24);
static_assert(offsetof(RingGeometry, submission_entries) == 32);
static_assert(offsetof(RingGeometry, completion_entries) == 36);
static_assert(offsetof(RingGeometry, answer_area_bytes) == 40);
static_assert(offsetof(RingGeometry, payload_area_bytes) == 44);
static_assert(offsetof(RingGeometry, seq_max) == 48);
static_assert(offsetof(RingGeometry, engine_spin_ns) == 52);
static_assert(offsetof(RingGeometry, first_entry) == 56);

// Both in the headers' pages, behind what layout.h has there, so that no offset of it changes.
inline constexpr uint64_t kDaemonRingWordsOff = 1024;
inline constexpr uint64_t kEngineRingWordsOff = 1024;
static_assert(kDaemonRingWordsOff >= sizeof(DaemonHeader));
static_assert(kEngineRingWordsOff >= sizeof(EngineHeader));

struct DaemonRingWords {
  RingGeometry geometry;
  A32 sq_head;  // entries taken; release, after they were copied out
  uint8_t reserved0[60];
  A32 sq_need_wake;  // 1: ring the doorbell after a submission
  uint8_t reserved1[60];
  A32 cq_tail;  // completions written; release, after them. The futex that the engine sleeps on
  uint8_t reserved2[60];
};
static_assert(sizeof(DaemonRingWords) == 256 && std::is_standard_layout_v<DaemonRingWords>);
static_assert(offsetof(DaemonRingWords, geometry) == 0 && offsetof(DaemonRingWords, sq_head) == 64);
static_assert(offsetof(DaemonRingWords, sq_need_wake) == 128);
static_assert(offsetof(DaemonRingWords, cq_tail) == 192);
static_assert(kDaemonRingWordsOff + sizeof(DaemonRingWords) <= kHeaderBytes);

struct EngineRingWords {
  A32 sq_tail;  // entries written; release, after them and their payloads
  uint8_t reserved0[60];
  A32 cq_head;  // completions read; release, after they and their answers were
  uint8_t reserved1[60];
  A32 cq_need_wake;  // 1: wake the futex after a completion
  uint8_t reserved2[60];
};
static_assert(sizeof(EngineRingWords) == 192 && std::is_standard_layout_v<EngineRingWords>);
static_assert(offsetof(EngineRingWords, sq_tail) == 0 && offsetof(EngineRingWords, cq_head) == 64);
static_assert(offsetof(EngineRingWords, cq_need_wake) == 128);
static_assert(kEngineRingWordsOff + sizeof(EngineRingWords) <= kHeaderBytes);

// How large a ring is to be. Powers of two.
struct RingSizes {
  uint32_t submission_entries = 256;
  uint32_t completion_entries = 256;
  uint32_t payload_area_bytes = 1U << 20;
  uint32_t answer_area_bytes = 256U << 10;
  uint32_t engine_spin_ns = 20'000;
  // Counters begin shortly before they wrap, so that a mistake there shows in every session and not
  // after four thousand million commands.
  uint32_t first_entry = 0xFFFFFF00;
};

// Errors: kInvalidArgument naming the field and its bounds.
absl::Status CheckRingSizes(const RingSizes& sizes);

// What the ring adds to each segment, behind the words in its first page; multiples of 4 KiB.
struct RingSegmentBytes {
  uint64_t d = 0;
  uint64_t e = 0;
};
// REQUIRES: CheckRingSizes().
RingSegmentBytes RingSegmentBytesFor(const RingSizes& sizes);

// The ring of these sizes from `d_off` and `e_off` on, where each segment keeps
// RingSegmentBytesFor() for it. REQUIRES: CheckRingSizes(); multiples of 4 KiB behind the header.
RingGeometry RingGeometryFor(const RingSizes& sizes, uint64_t d_off, uint64_t e_off,
                             uint32_t seq_max);

// For whoever maps segments that another process has laid out. Errors: kDataLoss naming the field
// and its bound.
absl::Status CheckRingGeometry(const RingGeometry& geometry, uint64_t d_bytes, uint64_t e_bytes);

// How much of the answer area a submission takes, from its entry to its completion's end.
constexpr uint32_t AnswerRoomOf(uint32_t answer_bytes_max) {
  const uint32_t bytes =
      answer_bytes_max > kRingErrorTextBytesMax ? answer_bytes_max : kRingErrorTextBytesMax;
  return static_cast<uint32_t>(RoundUp(bytes, kRingUnit));
}

// One line a field: `Struct.field offset size`; what a layout hash has to cover.
std::string CommandRingLayoutText();

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_COMMAND_RING_LAYOUT_H_
