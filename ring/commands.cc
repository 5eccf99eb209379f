#include "ring/commands.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace kvasir::ring {
namespace {

constexpr uint32_t kRetentionBytesMax = 4096;
constexpr uint32_t kQualityMax = 3;

shm::SubmissionEntry Entry(shm::CommandOp op) {
  shm::SubmissionEntry entry{};
  entry.op = static_cast<uint8_t>(op);
  return entry;
}
shm::SubmissionEntry Entry(shm::CommandOp op, SequenceRef sequence) {
  shm::SubmissionEntry entry = Entry(op);
  entry.seq = sequence.slot;
  entry.seq_uid = sequence.uid;
  return entry;
}

template <typename Record>
absl::StatusOr<std::span<const Record>> RecordsOf(std::span<const std::byte> answer,
                                                  uint64_t records) {
  if (records != answer.size() / sizeof(Record) || answer.size() % sizeof(Record) != 0) {
    return DataLoss("an answer has the wrong length: records={} bytes={} bytes_of_record={}",
                    records, answer.size(), sizeof(Record));
  }
  return std::span(reinterpret_cast<const Record*>(answer.data()), records);
}

}  // namespace

shm::SubmissionEntry MakeSync(SequenceRef sequence, uint64_t granted_rows,
                              std::optional<uint64_t> table_row) {
  shm::SubmissionEntry entry = Entry(shm::CommandOp::kSync, sequence);
  entry.flags = table_row ? shm::kSyncHasTableRow : uint8_t{0};
  entry.arg[0] = granted_rows;
  entry.arg[1] = table_row.value_or(0);
  return entry;
}

shm::SubmissionEntry MakeSyncMany(std::span<const shm::SyncNeedRecord> needs) {
  shm::SubmissionEntry entry = Entry(shm::CommandOp::kSyncMany);
  entry.answer_bytes_max = static_cast<uint32_t>(needs.size() * sizeof(shm::SyncResultRecord));
  return entry;
}

shm::SubmissionEntry MakePublishPrefix(SequenceRef sequence) {
  return Entry(shm::CommandOp::kPublishPrefix, sequence);
}

shm::SubmissionEntry MakeRetrieve(SequenceRef sequence, uint32_t layer, uint64_t mass_blocks,
                                  uint32_t blocks_max) {
  shm::SubmissionEntry entry = Entry(shm::CommandOp::kRetrieve, sequence);
  entry.arg[0] = layer;
  entry.arg[1] = mass_blocks;
  entry.answer_bytes_max = static_cast<uint32_t>(blocks_max * sizeof(shm::RetrievedBlockRecord));
  return entry;
}

shm::SubmissionEntry MakeCloseSequence(SequenceRef sequence) {
  return Entry(shm::CommandOp::kCloseSequence, sequence);
}

shm::SubmissionEntry MakeTruncate(SequenceRef sequence, uint64_t rows) {
  shm::SubmissionEntry entry = Entry(shm::CommandOp::kTruncate, sequence);
  entry.arg[0] = rows;
  return entry;
}

absl::StatusOr<MatchPayload> MatchPayload::Make(uint32_t model_id, std::span<const uint32_t> tokens,
                                                std::span<const shm::MatchExtraRecord> extras,
                                                std::string_view salt, uint64_t rows_max,
                                                bool prefetch) {
  if (salt.size() > shm::kMatchSaltBytesMax) {
    return InvalidArgument("salt is too long: bytes={} max={}", salt.size(),
                           shm::kMatchSaltBytesMax);
  }
  MatchPayload payload;
  payload.record_.model_id = model_id;
  payload.record_.flags = prefetch ? shm::kMatchPrefetch : 0;
  payload.record_.rows_max = rows_max;
  payload.record_.tokens = static_cast<uint32_t>(tokens.size());
  payload.record_.extras = static_cast<uint32_t>(extras.size());
  payload.record_.salt_bytes = static_cast<uint32_t>(salt.size());
  std::copy(salt.begin(), salt.end(), payload.record_.salt);
  payload.tokens_ = tokens;
  payload.extras_ = extras;
  return payload;
}

shm::SubmissionEntry MatchPayload::Entry(uint32_t answer_bytes_max) {
  shm::SubmissionEntry entry = ring::Entry(shm::CommandOp::kMatchPrefix);
  entry.answer_bytes_max = answer_bytes_max;
  return entry;
}

std::array<std::span<const std::byte>, 4> MatchPayload::Pieces() const {
  static constexpr std::array<std::byte, 4> kZeros{};
  const std::span<const std::byte> padding(kZeros.data(), tokens_.size() % 2 * 4);
  return {std::as_bytes(std::span(&record_, 1)), std::as_bytes(tokens_), padding,
          std::as_bytes(extras_)};
}

absl::StatusOr<shm::MatchExtraRecord> MakeMatchExtra(uint64_t row, std::string_view digest) {
  if (digest.empty() || digest.size() > shm::kMatchDigestBytesMax) {
    return InvalidArgument("digest has the wrong length: bytes={} min=1 max={}", digest.size(),
                           shm::kMatchDigestBytesMax);
  }
  shm::MatchExtraRecord extra{};
  extra.row = row;
  extra.digest_bytes = static_cast<uint32_t>(digest.size());
  std::copy(digest.begin(), digest.end(), extra.digest);
  return extra;
}

absl::StatusOr<std::span<const shm::SyncResultRecord>> SyncResultsOf(
    std::span<const std::byte> answer, size_t needs) {
  return RecordsOf<shm::SyncResultRecord>(answer, needs);
}

absl::StatusOr<std::span<const shm::RetrievedBlockRecord>> RetrievedBlocksOf(
    const shm::CompletionEntry& entry, std::span<const std::byte> answer) {
  return RecordsOf<shm::RetrievedBlockRecord>(answer, entry.result[0]);
}

absl::StatusOr<std::vector<MatchForm>> MatchFormsOf(const shm::CompletionEntry& entry,
                                                    std::span<const std::byte> answer) {
  const uint64_t count = entry.result[0];
  if (count > answer.size() / sizeof(shm::MatchFormRecord)) {
    return DataLoss("forms of an answer are out of bounds: value={} max={}", count,
                    answer.size() / sizeof(shm::MatchFormRecord));
  }
  std::vector<MatchForm> forms;
  for (const shm::MatchFormRecord& record :
       std::span(reinterpret_cast<const shm::MatchFormRecord*>(answer.data()), count)) {
    if (record.quality < 1 || record.quality > kQualityMax || record.is_public > 1 ||
        record.retention_bytes > kRetentionBytesMax || record.retention_off > answer.size() ||
        record.retention_bytes > answer.size() - record.retention_off ||
        record.condensed_bytes > kRetentionBytesMax || record.condensed_off > answer.size() ||
        record.condensed_bytes > answer.size() - record.condensed_off) {
      return DataLoss(
          "a form of an answer is out of bounds: form={} quality={} is_public={} retention_off={} "
          "retention_bytes={} answer_bytes={}",
          forms.size(), record.quality, record.is_public, record.retention_off,
          record.retention_bytes, answer.size());
    }
    const auto* const retention =
        reinterpret_cast<const char*>(answer.data() + record.retention_off);
    const auto* const place = reinterpret_cast<const char*>(record.place);
    forms.push_back(
        {record.rows, record.quality, record.is_public == 1,
         std::string(retention, record.retention_bytes),
         std::string(place, ::strnlen(place, sizeof(record.place))),
         std::string(reinterpret_cast<const char*>(answer.data() + record.condensed_off),
                     record.condensed_bytes)});
  }
  return forms;
}

std::vector<std::byte> MakeMatchAnswer(std::span<const MatchForm> forms, uint32_t bytes_max,
                                       uint64_t* forms_in_answer) {
  size_t count = 0, bytes = 0;
  for (const MatchForm& form : forms) {
    const size_t more =
        sizeof(shm::MatchFormRecord) + form.retention.size() + form.condensed_from.size();
    if (more > bytes_max - bytes || form.retention.size() > kRetentionBytesMax ||
        form.condensed_from.size() > kRetentionBytesMax) {
      break;
    }
    bytes += more;
    ++count;
  }
  std::vector<std::byte> answer(bytes);
  size_t text = count * sizeof(shm::MatchFormRecord);
  for (size_t i = 0; i < count; ++i) {
    const MatchForm& form = forms[i];
    shm::MatchFormRecord record{};
    record.rows = form.rows;
    record.quality = form.quality;
    record.is_public = form.is_public ? 1 : 0;
    record.retention_off = static_cast<uint32_t>(text);
    record.retention_bytes = static_cast<uint32_t>(form.retention.size());
    record.condensed_off = static_cast<uint32_t>(text + form.retention.size());
    record.condensed_bytes = static_cast<uint32_t>(form.condensed_from.size());
    std::copy_n(form.place.data(), std::min(form.place.size(), sizeof(record.place)), record.place);
    std::memcpy(answer.data() + i * sizeof(record), &record, sizeof(record));
    std::memcpy(answer.data() + text, form.retention.data(), form.retention.size());
    std::memcpy(answer.data() + record.condensed_off, form.condensed_from.data(),
                form.condensed_from.size());
    text += form.retention.size() + form.condensed_from.size();
  }
  *forms_in_answer = count;
  return answer;
}

}  // namespace kvasir::ring
