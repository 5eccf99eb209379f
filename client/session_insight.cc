// What a session may know of its tenant, as text for programs.
#include <string>

#include <google/protobuf/util/json_util.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/session.h"
#include "client/session_state.h"

namespace kvasir {
namespace {

absl::StatusOr<std::string> JsonOf(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string out;
  const auto status = google::protobuf::util::MessageToJsonString(message, &out, options);
  if (!status.ok()) return Internal("the answer cannot be put into words: {}", status.ToString());
  return out;
}

}  // namespace

absl::StatusOr<std::string> Session::DescribeTenant() {
  v1::GetStatsResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &response));
  return JsonOf(response);
}

absl::StatusOr<std::string> Session::DescribePolicies() {
  v1::ListPoliciesResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::Admin::Stub::ListPolicies, v1::ListPoliciesRequest(), &response));
  return JsonOf(response);
}

absl::StatusOr<std::string> Session::DescribeRows(uint64_t sequence_id, uint32_t layer,
                                                  uint64_t first_row, uint32_t rows_max) {
  v1::InspectSequenceRequest request;
  request.set_sequence_id(sequence_id);
  request.set_layer(layer);
  request.set_first_row(first_row);
  request.set_max_rows(rows_max);
  v1::InspectSequenceResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::Admin::Stub::InspectSequence, request, &response));
  return JsonOf(response);
}

std::shared_ptr<const void> Session::HoldMemory() const { return state_->extents->Hold(); }

}  // namespace kvasir
