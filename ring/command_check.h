// What an honest engine can write into an entry and its payload, and nothing else. Judged are
// private copies.
//
// Values whose truth only the core knows (a uid, a model, rows) are not judged here: they get a
// status. Errors: kInvalidArgument naming field, value and bound; each is a violation.
#ifndef KVASIR_RING_COMMAND_CHECK_H_
#define KVASIR_RING_COMMAND_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "proto/shm/command_payload.h"
#include "proto/shm/command_ring_layout.h"

namespace kvasir::ring {

absl::Status CheckEntry(const shm::SubmissionEntry& entry, const shm::RingGeometry& geometry);

// How many sequences a checked entry asks about.
uint32_t SequencesOf(const shm::SubmissionEntry& entry);

// REQUIRES: CheckEntry(). `payload` has entry.payload_bytes and is 8-byte aligned.
absl::Status CheckPayload(const shm::SubmissionEntry& entry, std::span<const std::byte> payload,
                          const shm::RingGeometry& geometry);

// Of a checked kSyncMany.
std::span<const shm::SyncNeedRecord> SyncNeedsOf(std::span<const std::byte> payload);

// Of a checked kMatchPrefix.
struct MatchParts {
  const shm::MatchRecord* record = nullptr;
  std::span<const uint32_t> tokens;
  std::span<const shm::MatchExtraRecord> extras;
};
MatchParts MatchPartsOf(std::span<const std::byte> payload);

}  // namespace kvasir::ring

#endif  // KVASIR_RING_COMMAND_CHECK_H_
