#include "policies/degrade_ladder.h"

#include <algorithm>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/policy_registry.h"

namespace kvasir {
namespace {

// What a rung leaves, the better the larger.
enum class Left { kSomeRows = 1, kEncoded = 2, kAsWritten = 3 };

const char* NameOf(Left left) {
  switch (left) {
    case Left::kSomeRows:
      return "some rows";
    case Left::kEncoded:
      return "every row, encoded";
    default:
      return "every row as written";
  }
}

}  // namespace

bool KeepsAllRows(const PolicyLanes& lanes) {
  return std::all_of(lanes.lanes.begin(), lanes.lanes.end(),
                     [](const auto& lane) { return lane->KeepsAll(); });
}

absl::Status CheckCondenses(const PolicyLanes& lanes) {
  if (lanes.selection || lanes.retrieval || !lanes.shareable) {
    return InvalidArgument("queries decide what stays: retention={} bound=rows and ids decide",
                           lanes.spec);
  }
  for (const auto& lane : lanes.lanes) {
    const ScoreSource source = lane->Needs().source;
    if (source == ScoreSource::kNone || source == ScoreSource::kKeyNorm ||
        source == ScoreSource::kKeyDifference) {
      continue;
    }
    return InvalidArgument("an engine's reports decide what stays: retention={} bound=rows and ids",
                           lanes.spec);
  }
  return absl::OkStatus();
}

absl::Status CheckDegradeLadder(std::span<const std::string> rungs) {
  Left before = Left::kAsWritten;
  bool encoded = false;
  for (size_t i = 0; i < rungs.size(); ++i) {
    const absl::StatusOr<PolicyLanes> lanes = MakeLanesOfSomeModel(rungs[i]);
    const absl::Status status = lanes.ok() ? CheckCondenses(*lanes) : lanes.status();
    if (!status.ok()) return InvalidArgument("rung {}: {}", i, MessageOf(status));
    const Left left = !KeepsAllRows(*lanes) ? Left::kSomeRows
                      : lanes->encoding     ? Left::kEncoded
                                            : Left::kAsWritten;
    if (left >= before) {
      return InvalidArgument("rung {}: retention={} leaves={} bound=less than {}", i, rungs[i],
                             NameOf(left), NameOf(before));
    }
    if (encoded && lanes->encoding) {
      return InvalidArgument("rung {}: retention={} bound=rows are encoded once, by rung 0", i,
                             rungs[i]);
    }
    before = left;
    encoded |= lanes->encoding.has_value();
  }
  return absl::OkStatus();
}

}  // namespace kvasir
