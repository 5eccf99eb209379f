// The commands of the ring for its users: entries and payloads as an engine makes them, answers as
// a daemon makes them and an engine judges them. What the fields mean: proto/shm/command_payload.h.
//
// Errors of what reads answers: kDataLoss naming field and bound.
#ifndef KVASIR_RING_COMMANDS_H_
#define KVASIR_RING_COMMANDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "proto/shm/command_payload.h"
#include "proto/shm/command_ring_layout.h"

namespace kvasir::ring {

struct SequenceRef {
  uint32_t slot = 0;
  uint32_t uid = 0;
};

// ---- entries; `user_data` and `deadline_ms` are the caller's to set
shm::SubmissionEntry MakeSync(SequenceRef sequence, uint64_t granted_rows,
                              std::optional<uint64_t> table_row);
// The payload is the records themselves.
shm::SubmissionEntry MakeSyncMany(std::span<const shm::SyncNeedRecord> needs);
shm::SubmissionEntry MakePublishPrefix(SequenceRef sequence);
shm::SubmissionEntry MakeRetrieve(SequenceRef sequence, uint32_t layer, uint64_t mass_blocks,
                                  uint32_t blocks_max);
shm::SubmissionEntry MakeCloseSequence(SequenceRef sequence);
shm::SubmissionEntry MakeTruncate(SequenceRef sequence, uint64_t rows);

// kMatchPrefix. Borrows tokens and extras; its pieces are valid as long as it and they are.
class MatchPayload {
 public:
  // Errors: kInvalidArgument for a salt that is too long.
  static absl::StatusOr<MatchPayload> Make(uint32_t model_id, std::span<const uint32_t> tokens,
                                           std::span<const shm::MatchExtraRecord> extras,
                                           std::string_view salt, uint64_t rows_max, bool prefetch);

  static shm::SubmissionEntry Entry(uint32_t answer_bytes_max);
  std::array<std::span<const std::byte>, 4> Pieces() const;

 private:
  shm::MatchRecord record_{};
  std::span<const uint32_t> tokens_;
  std::span<const shm::MatchExtraRecord> extras_;
};
// Errors: kInvalidArgument for a digest that is empty or too long.
absl::StatusOr<shm::MatchExtraRecord> MakeMatchExtra(uint64_t row, std::string_view digest);

// ---- answers, by an engine: `answer` is the copy, 8-byte aligned, of a completion with status 0
absl::StatusOr<std::span<const shm::SyncResultRecord>> SyncResultsOf(
    std::span<const std::byte> answer, size_t needs);
absl::StatusOr<std::span<const shm::RetrievedBlockRecord>> RetrievedBlocksOf(
    const shm::CompletionEntry& entry, std::span<const std::byte> answer);

struct MatchForm {
  uint64_t rows = 0;
  uint32_t quality = 0;  // 1 to 3
  bool is_public = false;
  std::string retention;
  std::string place;
  std::string condensed_from = {};
};
absl::StatusOr<std::vector<MatchForm>> MatchFormsOf(const shm::CompletionEntry& entry,
                                                    std::span<const std::byte> answer);

// ---- answers, by the daemon
// As many of the forms, from the first on, as `bytes_max` has room for; sets how many.
std::vector<std::byte> MakeMatchAnswer(std::span<const MatchForm> forms, uint32_t bytes_max,
                                       uint64_t* forms_in_answer);

}  // namespace kvasir::ring

#endif  // KVASIR_RING_COMMANDS_H_
