// What the commands of the ring carry beyond their entries: payloads, answers, arguments, results.
//
// | op             | seq, uid | arg[0..2]                      | payload                          |
// |----------------|----------|--------------------------------|----------------------------------|
// | kSync          | yes      | granted_rows, table_row (0     | -                                |
// |                |          | without kSyncHasTableRow), 0   |                                  |
// | kSyncMany      | 0        | 0                              | SyncNeedRecord[1 to 1024]        |
// | kPublishPrefix | yes      | 0                              | -                                |
// | kMatchPrefix   | 0        | 0                              | MatchRecord, u32 tokens[tokens], |
// |                |          |                                | 0 to 4 bytes of zeros up to a    |
// |                |          |                                | multiple of 8,                   |
// |                |          |                                | MatchExtraRecord[extras]         |
// | kRetrieve      | yes      | layer (below 2^32),            | -                                |
// |                |          | mass_blocks, 0                 |                                  |
// | kCloseSequence | yes      | 0                              | -                                |
// | kTruncate      | yes      | rows, 0, 0                     | -                                |
//
// | op             | result[0..2]                                       | answer                 |
// |----------------|----------------------------------------------------|------------------------|
// | kSync          | granted_rows, published_version, unseen_bytes      | -                      |
// | kSyncMany      | 0                                                  | SyncResultRecord, one  |
// |                |                                                    | for each need          |
// | kPublishPrefix | rows, held_bytes, 0                                | -                      |
// | kMatchPrefix   | forms in the answer, forms that there are, 0       | MatchFormRecord[],     |
// |                |                                                    | then their retentions  |
// | kRetrieve      | blocks, 0, 0                                       | RetrievedBlockRecord[] |
// | kCloseSequence | 0                                                  | -                      |
// | kTruncate      | the sequence's new uid, rollback floor, 0          | -                      |
//
// Meanings are those of the calls of the same name (proto/kvasir/v1/kv_cache.proto). With a status
// that is not 0 all results are 0 and the answer is text.
#ifndef KVASIR_PROTO_SHM_COMMAND_PAYLOAD_H_
#define KVASIR_PROTO_SHM_COMMAND_PAYLOAD_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kvasir::shm {

inline constexpr uint32_t kSyncNeedsMax = 1024;
inline constexpr uint32_t kMatchExtrasMax = 4096;
inline constexpr uint32_t kMatchSaltBytesMax = 256;
inline constexpr uint32_t kMatchDigestBytesMax = 128;
inline constexpr uint32_t kMatchPrefetch = 1;  // MatchRecord::flags

struct SyncNeedRecord {
  uint32_t seq;
  uint32_t uid;
  uint64_t granted_rows;  // wait until so many are granted; 0: no wait
  uint64_t table_row;     // wait for a table that the query of this row may use; 0 without the flag
  uint32_t flags;         // kSyncHasTableRow or 0
  uint32_t reserved;
};
static_assert(sizeof(SyncNeedRecord) == 32 && std::is_standard_layout_v<SyncNeedRecord>);
static_assert(offsetof(SyncNeedRecord, seq) == 0 && offsetof(SyncNeedRecord, uid) == 4);
static_assert(offsetof(SyncNeedRecord, granted_rows) == 8);
static_assert(offsetof(SyncNeedRecord, table_row) == 16);
static_assert(offsetof(SyncNeedRecord, flags) == 24 && offsetof(SyncNeedRecord, reserved) == 28);

struct SyncResultRecord {
  int32_t status;     // google.rpc.Code; kSync of that sequence alone has the text
  uint32_t retry_ms;  // with kResourceExhausted
  uint64_t granted_rows;
  uint64_t published_version;
  uint64_t unseen_bytes;
};
static_assert(sizeof(SyncResultRecord) == 32 && std::is_standard_layout_v<SyncResultRecord>);
static_assert(offsetof(SyncResultRecord, status) == 0 && offsetof(SyncResultRecord, retry_ms) == 4);
static_assert(offsetof(SyncResultRecord, granted_rows) == 8);
static_assert(offsetof(SyncResultRecord, published_version) == 16);
static_assert(offsetof(SyncResultRecord, unseen_bytes) == 24);

struct MatchRecord {
  uint32_t model_id;
  uint32_t flags;       // kMatchPrefetch or 0
  uint64_t rows_max;    // no more are wanted; 0: as many as there are tokens
  uint32_t tokens;      // what the payload has room for, at most
  uint32_t extras;      // at most kMatchExtrasMax, and what the payload has room for
  uint32_t salt_bytes;  // at most kMatchSaltBytesMax
  uint32_t reserved;
  uint8_t salt[kMatchSaltBytesMax];  // zeros behind salt_bytes
};
static_assert(sizeof(MatchRecord) == 288 && std::is_standard_layout_v<MatchRecord>);
static_assert(offsetof(MatchRecord, model_id) == 0 && offsetof(MatchRecord, flags) == 4);
static_assert(offsetof(MatchRecord, rows_max) == 8 && offsetof(MatchRecord, tokens) == 16);
static_assert(offsetof(MatchRecord, extras) == 20 && offsetof(MatchRecord, salt_bytes) == 24);
static_assert(offsetof(MatchRecord, reserved) == 28 && offsetof(MatchRecord, salt) == 32);

struct MatchExtraRecord {
  uint64_t row;
  uint32_t digest_bytes;  // 1 to kMatchDigestBytesMax
  uint32_t reserved;
  uint8_t digest[kMatchDigestBytesMax];  // zeros behind digest_bytes
};
static_assert(sizeof(MatchExtraRecord) == 144 && std::is_standard_layout_v<MatchExtraRecord>);
static_assert(offsetof(MatchExtraRecord, row) == 0);
static_assert(offsetof(MatchExtraRecord, digest_bytes) == 8);
static_assert(offsetof(MatchExtraRecord, reserved) == 12);
static_assert(offsetof(MatchExtraRecord, digest) == 16);

// A form of a prefix that is cached; the longest first, as many as the answer has room for.
struct MatchFormRecord {
  uint64_t rows;
  uint32_t quality;          // 1 compacted, 2 quantised, 3 full
  uint32_t is_public;        // 0 or 1
  uint32_t retention_off;    // of the answer
  uint32_t retention_bytes;  // at most 4096
  uint8_t place[16];         // "memory" or a tier's name, zeros behind
  uint32_t condensed_off;    // of the form that the daemon has brought into `retention`
  uint32_t condensed_bytes;  // at most 4096; 0: none
  uint8_t reserved[16];
};
static_assert(sizeof(MatchFormRecord) == 64 && std::is_standard_layout_v<MatchFormRecord>);
static_assert(offsetof(MatchFormRecord, rows) == 0 && offsetof(MatchFormRecord, quality) == 8);
static_assert(offsetof(MatchFormRecord, is_public) == 12);
static_assert(offsetof(MatchFormRecord, retention_off) == 16);
static_assert(offsetof(MatchFormRecord, retention_bytes) == 20);
static_assert(offsetof(MatchFormRecord, place) == 24);
static_assert(offsetof(MatchFormRecord, condensed_off) == 40);
static_assert(offsetof(MatchFormRecord, condensed_bytes) == 44);

// A block in its slot: a group of one layer with retrieved_rows slots.
struct RetrievedBlockRecord {
  uint32_t block;  // of the sequence, from 0; ascending
  uint32_t extent;
  uint32_t generation;
  uint32_t reserved;
  uint64_t offset;
};
static_assert(sizeof(RetrievedBlockRecord) == 24);
static_assert(std::is_standard_layout_v<RetrievedBlockRecord>);
static_assert(offsetof(RetrievedBlockRecord, block) == 0);
static_assert(offsetof(RetrievedBlockRecord, extent) == 4);
static_assert(offsetof(RetrievedBlockRecord, generation) == 8);
static_assert(offsetof(RetrievedBlockRecord, offset) == 16);

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_COMMAND_PAYLOAD_H_
