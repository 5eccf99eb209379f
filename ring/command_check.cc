#include "ring/command_check.h"

#include <algorithm>
#include <limits>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::ring {
namespace {

using shm::CommandOp;

// Which fields of an entry an op uses; the others are zero.
struct Rule {
  CommandOp op;
  uint8_t flags;         // that may be set
  bool of_one_sequence;  // seq, seq_uid
  uint8_t args;          // how many of arg[]
  uint32_t payload_bytes_min;
  uint32_t payload_bytes_unit;  // 0: no payload
};

constexpr uint32_t kAnyArgs = 3;
constexpr Rule kRules[] = {
    {CommandOp::kSync, shm::kSyncHasTableRow, true, 2, 0, 0},
    {CommandOp::kSyncMany, 0, false, 0, sizeof(shm::SyncNeedRecord), sizeof(shm::SyncNeedRecord)},
    {CommandOp::kPublishPrefix, 0, true, 0, 0, 0},
    {CommandOp::kMatchPrefix, 0, false, 0, sizeof(shm::MatchRecord), 8},
    {CommandOp::kRetrieve, 0, true, 2, 0, 0},
    {CommandOp::kCloseSequence, 0, true, 0, 0, 0},
    {CommandOp::kTruncate, 0, true, 1, 0, 0},
};

absl::Status OutOfBounds(const char* field, uint64_t value, uint64_t min, uint64_t max) {
  return InvalidArgument("{} of a submission is out of bounds: value={} min={} max={}", field,
                         value, min, max);
}
absl::Status NotZero(const char* field, uint64_t value, uint8_t op) {
  return InvalidArgument("{} of a submission has to be 0: value={} op={}", field, value, op);
}

absl::Status CheckReserved(const shm::SubmissionEntry& entry) {
  if (entry.reserved0 != 0) return NotZero("reserved0", entry.reserved0, entry.op);
  if (entry.reserved1 != 0) return NotZero("reserved1", entry.reserved1, entry.op);
  return absl::OkStatus();
}

absl::Status CheckPayloadPlace(const shm::SubmissionEntry& entry, const Rule& rule,
                               const shm::RingGeometry& geometry) {
  const uint32_t max = rule.payload_bytes_unit == 0 ? 0 : geometry.PayloadBytesMax();
  if (entry.payload_bytes < rule.payload_bytes_min || entry.payload_bytes > max) {
    return OutOfBounds("payload_bytes", entry.payload_bytes, rule.payload_bytes_min, max);
  }
  if (max != 0 && entry.payload_bytes % rule.payload_bytes_unit != 0) {
    return InvalidArgument("payload_bytes of a submission is misaligned: value={} multiple_of={}",
                           entry.payload_bytes, rule.payload_bytes_unit);
  }
  const uint32_t off_max = max == 0 ? 0 : geometry.payload_area_bytes - shm::kRingUnit;
  if (entry.payload_off > off_max) return OutOfBounds("payload_off", entry.payload_off, 0, off_max);
  if (entry.payload_off % shm::kRingUnit != 0) {
    return InvalidArgument("payload_off of a submission is misaligned: value={} multiple_of={}",
                           entry.payload_off, shm::kRingUnit);
  }
  return absl::OkStatus();
}

absl::Status CheckArguments(const shm::SubmissionEntry& entry, const Rule& rule) {
  constexpr const char* kNames[kAnyArgs] = {"arg[0]", "arg[1]", "arg[2]"};
  for (uint32_t i = rule.args; i < kAnyArgs; ++i) {
    if (entry.arg[i] != 0) return NotZero(kNames[i], entry.arg[i], entry.op);
  }
  if (rule.op == CommandOp::kSync && entry.flags == 0 && entry.arg[1] != 0) {
    return NotZero("arg[1] without kSyncHasTableRow", entry.arg[1], entry.op);
  }
  constexpr uint64_t kLayerMax = std::numeric_limits<uint32_t>::max();
  if (rule.op == CommandOp::kRetrieve && entry.arg[0] > kLayerMax) {
    return OutOfBounds("arg[0], a layer,", entry.arg[0], 0, kLayerMax);
  }
  return absl::OkStatus();
}

absl::Status CheckNeed(const shm::SyncNeedRecord& need, const shm::RingGeometry& geometry,
                       size_t index) {
  if (need.seq >= geometry.seq_max) {
    return InvalidArgument("seq of a need is out of bounds: need={} value={} min=0 max={}", index,
                           need.seq, geometry.seq_max - 1);
  }
  if ((need.flags & ~uint32_t{shm::kSyncHasTableRow}) != 0 || need.reserved != 0) {
    return InvalidArgument(
        "reserved bits of a need have to be 0: need={} flags={:#x} mask={:#x} reserved={}", index,
        need.flags, shm::kSyncHasTableRow, need.reserved);
  }
  if (need.flags == 0 && need.table_row != 0) {
    return InvalidArgument("table_row of a need without its flag has to be 0: need={} value={}",
                           index, need.table_row);
  }
  return absl::OkStatus();
}

bool AllZero(const uint8_t* begin, const uint8_t* end) {
  return std::all_of(begin, end, [](uint8_t byte) { return byte == 0; });
}

// Of the tokens, up to a multiple of 8.
uint64_t TokenBytes(uint32_t tokens) { return RoundUp(uint64_t{4} * tokens, 8); }

absl::Status CheckMatch(std::span<const std::byte> payload) {
  const auto& record = *reinterpret_cast<const shm::MatchRecord*>(payload.data());
  if ((record.flags & ~shm::kMatchPrefetch) != 0 || record.reserved != 0) {
    return InvalidArgument(
        "reserved bits of a match have to be 0: flags={:#x} mask={:#x} reserved={}", record.flags,
        shm::kMatchPrefetch, record.reserved);
  }
  if (record.salt_bytes > shm::kMatchSaltBytesMax) {
    return InvalidArgument("salt_bytes of a match is out of bounds: value={} min=0 max={}",
                           record.salt_bytes, shm::kMatchSaltBytesMax);
  }
  if (!AllZero(record.salt + record.salt_bytes, std::end(record.salt))) {
    return InvalidArgument("salt of a match has to be 0 behind its end: salt_bytes={}",
                           record.salt_bytes);
  }
  if (record.extras > shm::kMatchExtrasMax) {
    return InvalidArgument("extras of a match is out of bounds: value={} min=0 max={}",
                           record.extras, shm::kMatchExtrasMax);
  }
  const uint64_t bytes = sizeof(record) + TokenBytes(record.tokens) +
                         uint64_t{record.extras} * sizeof(shm::MatchExtraRecord);
  if (bytes != payload.size()) {
    return InvalidArgument(
        "tokens and extras of a match do not fill its payload: tokens={} extras={} bytes={} "
        "payload_bytes={}",
        record.tokens, record.extras, bytes, payload.size());
  }
  const MatchParts parts = MatchPartsOf(payload);
  const auto* const padding =
      reinterpret_cast<const uint8_t*>(parts.tokens.data()) + parts.tokens.size_bytes();
  if (!AllZero(padding, reinterpret_cast<const uint8_t*>(parts.extras.data()))) {
    return InvalidArgument("bytes behind the tokens of a match have to be 0: tokens={}",
                           record.tokens);
  }
  for (size_t i = 0; i < parts.extras.size(); ++i) {
    const shm::MatchExtraRecord& extra = parts.extras[i];
    if (extra.digest_bytes < 1 || extra.digest_bytes > shm::kMatchDigestBytesMax) {
      return InvalidArgument(
          "digest_bytes of an extra is out of bounds: extra={} value={} min=1 max={}", i,
          extra.digest_bytes, shm::kMatchDigestBytesMax);
    }
    if (extra.reserved != 0 ||
        !AllZero(extra.digest + extra.digest_bytes, std::end(extra.digest))) {
      return InvalidArgument("reserved bytes of an extra have to be 0: extra={}", i);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckEntry(const shm::SubmissionEntry& entry, const shm::RingGeometry& geometry) {
  const auto* const rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& one) {
    return static_cast<uint8_t>(one.op) == entry.op;
  });
  if (rule == std::end(kRules)) {
    return InvalidArgument("op of a submission is unknown: value={}", entry.op);
  }
  KVASIR_RETURN_IF_ERROR(CheckReserved(entry));
  if ((entry.flags & ~rule->flags) != 0) {
    return InvalidArgument("flags of a submission are unknown: value={:#x} mask={:#x} op={}",
                           entry.flags, rule->flags, entry.op);
  }
  if (rule->of_one_sequence) {
    if (entry.seq >= geometry.seq_max) {
      return OutOfBounds("seq", entry.seq, 0, geometry.seq_max - 1);
    }
  } else {
    if (entry.seq != 0) return NotZero("seq", entry.seq, entry.op);
    if (entry.seq_uid != 0) return NotZero("seq_uid", entry.seq_uid, entry.op);
  }
  KVASIR_RETURN_IF_ERROR(CheckArguments(entry, *rule));
  KVASIR_RETURN_IF_ERROR(CheckPayloadPlace(entry, *rule, geometry));
  if (rule->op == CommandOp::kSyncMany &&
      entry.payload_bytes > shm::kSyncNeedsMax * sizeof(shm::SyncNeedRecord)) {
    return OutOfBounds("payload_bytes", entry.payload_bytes, rule->payload_bytes_min,
                       shm::kSyncNeedsMax * sizeof(shm::SyncNeedRecord));
  }
  if (entry.answer_bytes_max > geometry.AnswerBytesMax()) {
    return OutOfBounds("answer_bytes_max", entry.answer_bytes_max, 0, geometry.AnswerBytesMax());
  }
  return absl::OkStatus();
}

uint32_t SequencesOf(const shm::SubmissionEntry& entry) {
  if (static_cast<CommandOp>(entry.op) != CommandOp::kSyncMany) return 1;
  return static_cast<uint32_t>(entry.payload_bytes / sizeof(shm::SyncNeedRecord));
}

absl::Status CheckPayload(const shm::SubmissionEntry& entry, std::span<const std::byte> payload,
                          const shm::RingGeometry& geometry) {
  if (static_cast<CommandOp>(entry.op) == CommandOp::kMatchPrefix) return CheckMatch(payload);
  if (static_cast<CommandOp>(entry.op) != CommandOp::kSyncMany) return absl::OkStatus();
  const std::span<const shm::SyncNeedRecord> needs = SyncNeedsOf(payload);
  for (size_t i = 0; i < needs.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(CheckNeed(needs[i], geometry, i));
  }
  return absl::OkStatus();
}

std::span<const shm::SyncNeedRecord> SyncNeedsOf(std::span<const std::byte> payload) {
  return {reinterpret_cast<const shm::SyncNeedRecord*>(payload.data()),
          payload.size() / sizeof(shm::SyncNeedRecord)};
}

MatchParts MatchPartsOf(std::span<const std::byte> payload) {
  MatchParts parts;
  parts.record = reinterpret_cast<const shm::MatchRecord*>(payload.data());
  const std::byte* const tokens = payload.data() + sizeof(shm::MatchRecord);
  parts.tokens = {reinterpret_cast<const uint32_t*>(tokens), parts.record->tokens};
  parts.extras = {
      reinterpret_cast<const shm::MatchExtraRecord*>(tokens + TokenBytes(parts.record->tokens)),
      parts.record->extras};
  return parts;
}

}  // namespace kvasir::ring
