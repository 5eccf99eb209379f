#include "client/ctl/admin_client.h"

#include <errno.h>
#include <sys/stat.h>

#include <cstring>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "base/error.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "kvasir/v1/admin.grpc.pb.h"

#include <grpc/support/time.h>

namespace kvasir::ctl {
namespace {

namespace health = grpc::health::v1;

class GrpcAdminClient final : public AdminClient {
 public:
  GrpcAdminClient(const std::string& socket_path, std::chrono::milliseconds deadline)
      : socket_path_(socket_path),
        deadline_(deadline),
        channel_(grpc::CreateChannel("unix:" + socket_path, grpc::InsecureChannelCredentials())),
        admin_(v1::Admin::NewStub(channel_)),
        health_(health::Health::NewStub(channel_)) {}

  absl::StatusOr<v1::GetStatsResponse> GetStats() override {
    return Call<v1::GetStatsResponse>(*admin_, &v1::Admin::Stub::GetStats, v1::GetStatsRequest());
  }
  absl::StatusOr<v1::ListSequencesResponse> ListSequences(
      const v1::ListSequencesRequest& request) override {
    return Call<v1::ListSequencesResponse>(*admin_, &v1::Admin::Stub::ListSequences, request);
  }
  absl::StatusOr<v1::ListSnapshotsResponse> ListSnapshots(
      const v1::ListSnapshotsRequest& request) override {
    return Call<v1::ListSnapshotsResponse>(*admin_, &v1::Admin::Stub::ListSnapshots, request);
  }
  absl::StatusOr<v1::ListPrefixesResponse> ListPrefixes(
      const v1::ListPrefixesRequest& request) override {
    return Call<v1::ListPrefixesResponse>(*admin_, &v1::Admin::Stub::ListPrefixes, request);
  }
  absl::StatusOr<v1::ListPrefixLookupsResponse> ListPrefixLookups(
      const v1::ListPrefixLookupsRequest& request) override {
    return Call<v1::ListPrefixLookupsResponse>(*admin_, &v1::Admin::Stub::ListPrefixLookups,
                                               request);
  }
  absl::StatusOr<v1::GetHitRateCurvesResponse> GetHitRateCurves(
      const v1::GetHitRateCurvesRequest& request) override {
    return Call<v1::GetHitRateCurvesResponse>(*admin_, &v1::Admin::Stub::GetHitRateCurves, request);
  }
  absl::StatusOr<v1::DropPrefixesResponse> DropPrefixes(
      const v1::DropPrefixesRequest& request) override {
    return Call<v1::DropPrefixesResponse>(*admin_, &v1::Admin::Stub::DropPrefixes, request);
  }
  absl::StatusOr<v1::DrainPrefixesResponse> DrainPrefixes(
      const v1::DrainPrefixesRequest& request) override {
    grpc::ClientContext context;
    v1::DrainPrefixesResponse response;
    const grpc::Status status = admin_->DrainPrefixes(&context, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }
  absl::StatusOr<v1::ListTiersResponse> ListTiers() override {
    return Call<v1::ListTiersResponse>(*admin_, &v1::Admin::Stub::ListTiers,
                                       v1::ListTiersRequest());
  }
  absl::StatusOr<v1::SetTenantBudgetResponse> SetTenantBudget(
      const v1::SetTenantBudgetRequest& request) override {
    return Call<v1::SetTenantBudgetResponse>(*admin_, &v1::Admin::Stub::SetTenantBudget, request);
  }
  absl::StatusOr<v1::SetPoolSizeResponse> SetPoolSize(
      const v1::SetPoolSizeRequest& request) override {
    return Call<v1::SetPoolSizeResponse>(*admin_, &v1::Admin::Stub::SetPoolSize, request);
  }
  absl::Status WatchPrefixes(const v1::WatchPrefixesRequest& request,
                             const std::function<bool(const v1::PrefixEvent&)>& take) override {
    grpc::ClientContext context;
    return Follow<v1::PrefixEvent>(context, *admin_->WatchPrefixes(&context, request), take);
  }
  absl::Status RecordTrace(const v1::RecordTraceRequest& request,
                           const std::function<bool(const v1::TraceRecord&)>& take) override {
    grpc::ClientContext context;
    return Follow<v1::TraceRecord>(context, *admin_->RecordTrace(&context, request), take);
  }
  absl::StatusOr<v1::InspectSequenceResponse> InspectSequence(
      const v1::InspectSequenceRequest& request) override {
    return Call<v1::InspectSequenceResponse>(*admin_, &v1::Admin::Stub::InspectSequence, request);
  }
  absl::StatusOr<v1::ListPoliciesResponse> ListPolicies() override {
    return Call<v1::ListPoliciesResponse>(*admin_, &v1::Admin::Stub::ListPolicies,
                                          v1::ListPoliciesRequest());
  }
  absl::StatusOr<v1::GetHostResponse> GetHost() override {
    return Call<v1::GetHostResponse>(*admin_, &v1::Admin::Stub::GetHost, v1::GetHostRequest());
  }
  absl::StatusOr<std::string> CheckHealth() override {
    const auto response = Call<health::HealthCheckResponse>(*health_, &health::Health::Stub::Check,
                                                            health::HealthCheckRequest());
    if (!response.ok()) return response.status();
    const std::string word = health::HealthCheckResponse::ServingStatus_Name(response->status());
    return word.empty() ? "UNRECOGNIZED" : word;
  }

 private:
  template <typename Record>
  absl::Status Follow(grpc::ClientContext& context, grpc::ClientReader<Record>& reader,
                      const std::function<bool(const Record&)>& take) const {
    Record record;
    bool wanted = true;
    while (wanted && reader.Read(&record)) wanted = take(record);
    if (!wanted) context.TryCancel();
    const grpc::Status status = reader.Finish();
    return wanted && !status.ok() ? ToStatus(status) : absl::OkStatus();
  }

  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(::gpr_time_add(::gpr_now(GPR_CLOCK_MONOTONIC),
                                        ::gpr_time_from_millis(deadline_.count(), GPR_TIMESPAN)));
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

  absl::Status ToStatus(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) return Unreachable(status);
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return DeadlineExceeded("the daemon did not answer in time: socket={} deadline_ms={}",
                              socket_path_, deadline_.count());
    }
    // The numbers of gRPC and absl codes are the same (google.rpc.Code).
    return MakeError(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  absl::Status Unreachable(const grpc::Status& status) const {
    struct stat info {};
    if (::stat(socket_path_.c_str(), &info) != 0) {
      return Unavailable("no daemon: socket={} reason={}; is kvasird running?", socket_path_,
                         std::strerror(errno));
    }
    if (!S_ISSOCK(info.st_mode)) {
      return Unavailable("no daemon: socket={} reason=not a socket", socket_path_);
    }
    return Unavailable("nobody answers at the socket: socket={} reason={}", socket_path_,
                       status.error_message());
  }

  const std::string socket_path_;
  const std::chrono::milliseconds deadline_;
  const std::shared_ptr<grpc::Channel> channel_;  // shared by gRPC's own design
  const std::unique_ptr<v1::Admin::Stub> admin_;
  const std::unique_ptr<health::Health::Stub> health_;
};

}  // namespace

std::unique_ptr<AdminClient> NewAdminClient(const std::string& socket_path,
                                            std::chrono::milliseconds deadline) {
  return std::make_unique<GrpcAdminClient>(socket_path, deadline);
}

}  // namespace kvasir::ctl
