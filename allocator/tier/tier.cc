#include "allocator/tier/tier.h"

namespace kvasir {

std::string_view NameOf(ReadOutcome outcome) {
  switch (outcome) {
    case ReadOutcome::kHit:
      return "hit";
    case ReadOutcome::kAbsent:
      return "absent";
    case ReadOutcome::kCut:
      return "cut";
    case ReadOutcome::kCorrupt:
      return "corrupt";
    case ReadOutcome::kForeignFormat:
      return "foreign_format";
    case ReadOutcome::kForeignKey:
      return "foreign_key";
    case ReadOutcome::kOldVersion:
      return "old_version";
    case ReadOutcome::kWrongLength:
      return "wrong_length";
    case ReadOutcome::kFailed:
      return "failed";
    case ReadOutcome::kTimeout:
      return "timeout";
    case ReadOutcome::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace kvasir
