// AdminClient: the daemon's Admin and health services, one method a call, each with a deadline.
//
// Thread-safe. An interface, so that commands are tested without a network.
#ifndef KVASIR_CLIENT_CTL_ADMIN_CLIENT_H_
#define KVASIR_CLIENT_CTL_ADMIN_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "kvasir/v1/admin.pb.h"

namespace kvasir::ctl {

// Errors of every call: kUnavailable naming the socket when nobody answers there,
// kDeadlineExceeded, and what the daemon answers, with its text.
class AdminClient {
 public:
  virtual ~AdminClient() = default;
  virtual absl::StatusOr<v1::GetStatsResponse> GetStats() = 0;
  virtual absl::StatusOr<v1::ListSequencesResponse> ListSequences(
      const v1::ListSequencesRequest& request) = 0;
  virtual absl::StatusOr<v1::ListSnapshotsResponse> ListSnapshots(
      const v1::ListSnapshotsRequest& request) = 0;
  virtual absl::StatusOr<v1::ListPrefixesResponse> ListPrefixes(
      const v1::ListPrefixesRequest& request) = 0;
  virtual absl::StatusOr<v1::ListPrefixLookupsResponse> ListPrefixLookups(
      const v1::ListPrefixLookupsRequest& request) = 0;
  virtual absl::StatusOr<v1::GetHitRateCurvesResponse> GetHitRateCurves(
      const v1::GetHitRateCurvesRequest& request) = 0;
  virtual absl::StatusOr<v1::DropPrefixesResponse> DropPrefixes(
      const v1::DropPrefixesRequest& request) = 0;
  // Takes as long as it takes: without a deadline.
  virtual absl::StatusOr<v1::DrainPrefixesResponse> DrainPrefixes(
      const v1::DrainPrefixesRequest& request) = 0;
  virtual absl::StatusOr<v1::ListTiersResponse> ListTiers() = 0;
  virtual absl::StatusOr<v1::SetTenantBudgetResponse> SetTenantBudget(
      const v1::SetTenantBudgetRequest& request) = 0;
  virtual absl::StatusOr<v1::SetPoolSizeResponse> SetPoolSize(
      const v1::SetPoolSizeRequest& request) = 0;
  // Calls `take` for each event until it returns false. Without a deadline.
  virtual absl::Status WatchPrefixes(const v1::WatchPrefixesRequest& request,
                                     const std::function<bool(const v1::PrefixEvent&)>& take) = 0;
  // Calls `take` for each record until it returns false. Without a deadline.
  virtual absl::Status RecordTrace(const v1::RecordTraceRequest& request,
                                   const std::function<bool(const v1::TraceRecord&)>& take) = 0;
  virtual absl::StatusOr<v1::InspectSequenceResponse> InspectSequence(
      const v1::InspectSequenceRequest& request) = 0;
  virtual absl::StatusOr<v1::ListPoliciesResponse> ListPolicies() = 0;
  virtual absl::StatusOr<v1::GetHostResponse> GetHost() = 0;

  // "SERVING", "NOT_SERVING", ...: the protocol's words.
  virtual absl::StatusOr<std::string> CheckHealth() = 0;
};

// Makes no connection yet. `deadline` holds for each call.
std::unique_ptr<AdminClient> NewAdminClient(const std::string& socket_path,
                                            std::chrono::milliseconds deadline);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_ADMIN_CLIENT_H_
