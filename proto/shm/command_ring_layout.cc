#include "proto/shm/command_ring_layout.h"

#include <bit>

#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/command_payload.h"

#include <fmt/format.h>

namespace kvasir::shm {
namespace {

struct Size {
  const char* name;
  uint32_t value, min, max;
};

bool Fits(const Size& size) {
  return size.value >= size.min && size.value <= size.max && std::has_single_bit(size.value);
}

absl::Status CheckSize(const Size& size) {
  if (Fits(size)) return absl::OkStatus();
  return InvalidArgument("{} has to be a power of two within bounds: value={} min={} max={}",
                         size.name, size.value, size.min, size.max);
}

Size EntriesOf(const char* name, uint32_t value) {
  return {name, value, kRingEntriesMin, kRingEntriesMax};
}
Size AreaOf(const char* name, uint32_t value) {
  return {name, value, kRingAreaBytesMin, kRingAreaBytesMax};
}

uint64_t EntriesBytes(uint32_t entries) {
  return RoundUp(uint64_t{entries} * sizeof(SubmissionEntry), kPageBytes);
}
static_assert(sizeof(SubmissionEntry) == sizeof(CompletionEntry));

struct Region {
  const char* name;
  uint64_t off, bytes;
};

// Behind the header, page-aligned, inside the segment.
absl::Status CheckRegion(const Region& region, uint64_t segment_bytes) {
  if (region.off >= kHeaderBytes && region.off % kPageBytes == 0 && region.off <= segment_bytes &&
      region.bytes <= segment_bytes - region.off) {
    return absl::OkStatus();
  }
  return DataLoss(
      "{} of the command ring is out of bounds: value={} min={} multiple_of={} bytes={} "
      "segment_bytes={}",
      region.name, region.off, kHeaderBytes, kPageBytes, region.bytes, segment_bytes);
}

}  // namespace

absl::Status CheckRingSizes(const RingSizes& sizes) {
  KVASIR_RETURN_IF_ERROR(CheckSize(EntriesOf("submission_entries", sizes.submission_entries)));
  KVASIR_RETURN_IF_ERROR(CheckSize(EntriesOf("completion_entries", sizes.completion_entries)));
  KVASIR_RETURN_IF_ERROR(CheckSize(AreaOf("payload_area_bytes", sizes.payload_area_bytes)));
  return CheckSize(AreaOf("answer_area_bytes", sizes.answer_area_bytes));
}

RingSegmentBytes RingSegmentBytesFor(const RingSizes& sizes) {
  return {EntriesBytes(sizes.completion_entries) + sizes.answer_area_bytes,
          EntriesBytes(sizes.submission_entries) + sizes.payload_area_bytes};
}

RingGeometry RingGeometryFor(const RingSizes& sizes, uint64_t d_off, uint64_t e_off,
                             uint32_t seq_max) {
  RingGeometry geometry{};
  geometry.completions_off = d_off;
  geometry.answers_off = d_off + EntriesBytes(sizes.completion_entries);
  geometry.submissions_off = e_off;
  geometry.payloads_off = e_off + EntriesBytes(sizes.submission_entries);
  geometry.submission_entries = sizes.submission_entries;
  geometry.completion_entries = sizes.completion_entries;
  geometry.answer_area_bytes = sizes.answer_area_bytes;
  geometry.payload_area_bytes = sizes.payload_area_bytes;
  geometry.seq_max = seq_max;
  geometry.engine_spin_ns = sizes.engine_spin_ns;
  geometry.first_entry = sizes.first_entry;
  return geometry;
}

absl::Status CheckRingGeometry(const RingGeometry& geometry, uint64_t d_bytes, uint64_t e_bytes) {
  for (const Size& size : {EntriesOf("submission_entries", geometry.submission_entries),
                           EntriesOf("completion_entries", geometry.completion_entries),
                           AreaOf("payload_area_bytes", geometry.payload_area_bytes),
                           AreaOf("answer_area_bytes", geometry.answer_area_bytes)}) {
    if (!Fits(size)) {
      return DataLoss("{} of the command ring is out of bounds: value={} min={} max={}", size.name,
                      size.value, size.min, size.max);
    }
  }
  const Region in_d[] = {
      {"completions_off", geometry.completions_off, EntriesBytes(geometry.completion_entries)},
      {"answers_off", geometry.answers_off, geometry.answer_area_bytes}};
  for (const Region& region : in_d) KVASIR_RETURN_IF_ERROR(CheckRegion(region, d_bytes));
  const Region in_e[] = {
      {"submissions_off", geometry.submissions_off, EntriesBytes(geometry.submission_entries)},
      {"payloads_off", geometry.payloads_off, geometry.payload_area_bytes}};
  for (const Region& region : in_e) KVASIR_RETURN_IF_ERROR(CheckRegion(region, e_bytes));
  return absl::OkStatus();
}

#define KVASIR_FIELD_(Struct, field) \
  text += fmt::format(#Struct "." #field " {} {}\n", offsetof(Struct, field), sizeof(Struct::field))

std::string CommandRingLayoutText() {
  std::string text =
      fmt::format("command ring words {} {}\n", kDaemonRingWordsOff, kEngineRingWordsOff);
  KVASIR_FIELD_(SubmissionEntry, op);
  KVASIR_FIELD_(SubmissionEntry, flags);
  KVASIR_FIELD_(SubmissionEntry, seq);
  KVASIR_FIELD_(SubmissionEntry, user_data);
  KVASIR_FIELD_(SubmissionEntry, seq_uid);
  KVASIR_FIELD_(SubmissionEntry, payload_off);
  KVASIR_FIELD_(SubmissionEntry, payload_bytes);
  KVASIR_FIELD_(SubmissionEntry, deadline_ms);
  KVASIR_FIELD_(SubmissionEntry, arg);
  KVASIR_FIELD_(SubmissionEntry, answer_bytes_max);
  KVASIR_FIELD_(CompletionEntry, user_data);
  KVASIR_FIELD_(CompletionEntry, status);
  KVASIR_FIELD_(CompletionEntry, detail);
  KVASIR_FIELD_(CompletionEntry, boot_epoch);
  KVASIR_FIELD_(CompletionEntry, result);
  KVASIR_FIELD_(CompletionEntry, retry_ms);
  KVASIR_FIELD_(CompletionEntry, answer_off);
  KVASIR_FIELD_(CompletionEntry, answer_bytes);
  KVASIR_FIELD_(CompletionEntry, answer_bytes_max);
  KVASIR_FIELD_(RingGeometry, completions_off);
  KVASIR_FIELD_(RingGeometry, answers_off);
  KVASIR_FIELD_(RingGeometry, submissions_off);
  KVASIR_FIELD_(RingGeometry, payloads_off);
  KVASIR_FIELD_(RingGeometry, submission_entries);
  KVASIR_FIELD_(RingGeometry, completion_entries);
  KVASIR_FIELD_(RingGeometry, answer_area_bytes);
  KVASIR_FIELD_(RingGeometry, payload_area_bytes);
  KVASIR_FIELD_(RingGeometry, seq_max);
  KVASIR_FIELD_(RingGeometry, engine_spin_ns);
  KVASIR_FIELD_(RingGeometry, first_entry);
  KVASIR_FIELD_(DaemonRingWords, geometry);
  KVASIR_FIELD_(DaemonRingWords, sq_head);
  KVASIR_FIELD_(DaemonRingWords, sq_need_wake);
  KVASIR_FIELD_(DaemonRingWords, cq_tail);
  KVASIR_FIELD_(EngineRingWords, sq_tail);
  KVASIR_FIELD_(EngineRingWords, cq_head);
  KVASIR_FIELD_(EngineRingWords, cq_need_wake);
  KVASIR_FIELD_(SyncNeedRecord, seq);
  KVASIR_FIELD_(SyncNeedRecord, uid);
  KVASIR_FIELD_(SyncNeedRecord, granted_rows);
  KVASIR_FIELD_(SyncNeedRecord, table_row);
  KVASIR_FIELD_(SyncNeedRecord, flags);
  KVASIR_FIELD_(SyncResultRecord, status);
  KVASIR_FIELD_(SyncResultRecord, retry_ms);
  KVASIR_FIELD_(SyncResultRecord, granted_rows);
  KVASIR_FIELD_(SyncResultRecord, published_version);
  KVASIR_FIELD_(SyncResultRecord, unseen_bytes);
  KVASIR_FIELD_(MatchRecord, model_id);
  KVASIR_FIELD_(MatchRecord, flags);
  KVASIR_FIELD_(MatchRecord, rows_max);
  KVASIR_FIELD_(MatchRecord, tokens);
  KVASIR_FIELD_(MatchRecord, extras);
  KVASIR_FIELD_(MatchRecord, salt_bytes);
  KVASIR_FIELD_(MatchRecord, salt);
  KVASIR_FIELD_(MatchExtraRecord, row);
  KVASIR_FIELD_(MatchExtraRecord, digest_bytes);
  KVASIR_FIELD_(MatchExtraRecord, digest);
  KVASIR_FIELD_(MatchFormRecord, rows);
  KVASIR_FIELD_(MatchFormRecord, quality);
  KVASIR_FIELD_(MatchFormRecord, is_public);
  KVASIR_FIELD_(MatchFormRecord, retention_off);
  KVASIR_FIELD_(MatchFormRecord, retention_bytes);
  KVASIR_FIELD_(MatchFormRecord, place);
  KVASIR_FIELD_(MatchFormRecord, condensed_off);
  KVASIR_FIELD_(MatchFormRecord, condensed_bytes);
  KVASIR_FIELD_(RetrievedBlockRecord, block);
  KVASIR_FIELD_(RetrievedBlockRecord, extent);
  KVASIR_FIELD_(RetrievedBlockRecord, generation);
  KVASIR_FIELD_(RetrievedBlockRecord, offset);
  return text;
}

#undef KVASIR_FIELD_

}  // namespace kvasir::shm
