#include "daemon/control/status_convert.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/error.h"

namespace kvasir {
namespace {

void Add(const char* type, const google::protobuf::MessageLite& message,
         v1::StatusWithDetails* out) {
  v1::StatusWithDetails::Detail* const detail = out->add_details();
  detail->set_type_url(std::string("type.googleapis.com/") + type);
  message.SerializeToString(detail->mutable_value());
}

}  // namespace

void Fill(const Shortage& shortage, v1::Shortage* out) {
  out->set_budget(shortage.budget);
  out->set_missing(shortage.missing);
  out->set_holder(shortage.holder);
  out->set_retry_after_ms(static_cast<uint32_t>(
      std::min<int64_t>(shortage.retry_after.count(), std::numeric_limits<uint32_t>::max())));
}

uint32_t RetryMsOf(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kResourceExhausted) return 0;
  const std::optional<Shortage> shortage = ShortageOf(status);
  v1::Shortage wire;
  Fill(shortage.value_or(Shortage{"", 0, "", kRetryAfter}), &wire);
  return wire.retry_after_ms();
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::optional<Shortage> shortage = ShortageOf(status);
  if (!shortage) return {code, MessageOf(status)};
  v1::StatusWithDetails details;
  details.set_code(static_cast<int32_t>(status.code()));
  details.set_message(MessageOf(status));
  v1::RetryInfo retry;
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(shortage->retry_after);
  const std::chrono::nanoseconds rest = shortage->retry_after - whole;
  retry.mutable_retry_delay()->set_seconds(whole.count());
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(rest.count()));
  Add("google.rpc.RetryInfo", retry, &details);
  v1::Shortage wire;
  Fill(*shortage, &wire);
  Add("kvasir.v1.Shortage", wire, &details);
  return {code, MessageOf(status), details.SerializeAsString()};
}

}  // namespace kvasir
