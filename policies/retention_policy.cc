#include "policies/retention_policy.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/policy_state.h"

namespace kvasir {

absl::StatusOr<std::string> RetentionPolicy::SaveState() const {
  StateWriter writer;
  writer.Number(rows());
  KVASIR_RETURN_IF_ERROR(WriteState(writer));
  std::string bytes = SealState(kPolicyState, "", writer.bytes());
  if (bytes.size() > kPolicyState.bytes_max || rows() > kStateRowsMax) {
    return ResourceExhausted(
        "policy state is too large to be saved: bytes={} max={} rows={} max={}", bytes.size(),
        kPolicyState.bytes_max, rows(), kStateRowsMax);
  }
  return bytes;
}

absl::Status RetentionPolicy::RestoreState(std::string_view bytes, uint64_t rows) {
  if (rows > kStateRowsMax) {
    return InvalidArgument("policy state of too many rows: rows={} max={}", rows, kStateRowsMax);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::string_view body, OpenState(kPolicyState, "", bytes));
  StateReader reader(kPolicyState, body);
  reader.Expect("rows", rows);
  return ReadState(reader, rows);
}

absl::Status RetentionPolicy::WriteState(StateWriter& /*writer*/) const {
  return Unimplemented("a policy whose state is not all its own cannot be saved");
}

absl::Status RetentionPolicy::ReadState(StateReader& /*reader*/, uint64_t /*rows*/) {
  return Unimplemented("a policy whose state is not all its own cannot be restored");
}

}  // namespace kvasir
