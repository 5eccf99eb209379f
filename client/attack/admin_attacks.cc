// The Admin service, by a tenant: what acts or tells of the host is refused, and all else tells it
// of its own, whatever tenant's name it gives.
#include <chrono>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

using Stub = v1::Admin::Stub;

class Admin {
 public:
  Admin(const Target& target, Attempts& attempts)
      : target_(target), attempts_(attempts), calls_(target.control_socket, "") {}

  template <typename Request, typename Response>
  void Refused(const char* verb,
               grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
               const Request& request) {
    verbs.emplace_back(verb);
    Response response;
    attempts_.AddStatus(fmt::format("administer: {}", verb),
                        ToStatus(calls_.CallAdmin(method, request, &response)),
                        {absl::StatusCode::kPermissionDenied});
  }

  // It is answered, and the answer does not speak of the victim.
  template <typename Request, typename Response>
  Response Told(const char* verb,
                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                const Request& request) {
    verbs.emplace_back(verb);
    Response response;
    const grpc::Status status = calls_.CallAdmin(method, request, &response);
    const std::string what = fmt::format("hear of the other tenant: {}", verb);
    if (!status.ok() && status.error_code() != grpc::StatusCode::NOT_FOUND) {
      attempts_.Add(what, Verdict::kStrange, status.error_message());
      return response;
    }
    const bool named =
        !target_.tenant.empty() && response.DebugString().find(target_.tenant) != std::string::npos;
    attempts_.Add(what, named ? Verdict::kSucceeded : Verdict::kRefused,
                  named ? "the answer names it" : "daemon: it is told of its own alone");
    return response;
  }

  Calls& calls() { return calls_; }

  std::vector<std::string> verbs;

 private:
  const Target& target_;
  Attempts& attempts_;
  Calls calls_;
};

void AttackWatches(const Target& target, Admin& admin, Attempts& attempts) {
  admin.verbs.insert(admin.verbs.end(), {"RecordTrace", "WatchPrefixes"});
  const auto stub = v1::Admin::NewStub(admin.calls().channel());
  {
    v1::RecordTraceRequest record;
    record.set_tenant(target.tenant);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    attempts.AddStatus("record what the other tenant asks for",
                       ToStatus(stub->RecordTrace(&context, record)->Finish()),
                       {absl::StatusCode::kNotFound});
  }
  v1::WatchPrefixesRequest request;
  request.set_tenant(target.tenant);
  request.set_from_number(1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto reader = stub->WatchPrefixes(&context, request);
  bool named = false;
  v1::PrefixEvent event;
  while (reader->Read(&event)) named |= !event.tenant().empty();  // KIND_LOST names nobody
  attempts.Add("watch the other tenant's prefixes", named ? Verdict::kSucceeded : Verdict::kRefused,
               named ? "events came" : "daemon: no event of it came");
}

}  // namespace

std::vector<std::string> AttackAdmin(const Target& target, Attempts& attempts) {
  Admin admin(target, attempts);
  v1::DropPrefixesRequest drop;
  drop.set_tenant(target.tenant);
  admin.Refused("DropPrefixes", &Stub::DropPrefixes, drop);
  v1::DrainPrefixesRequest drain;
  drain.set_tenant(target.tenant);
  admin.Refused("DrainPrefixes", &Stub::DrainPrefixes, drain);
  v1::SetPoolSizeRequest size;
  size.set_pool_bytes(32 * kMiB);
  admin.Refused("SetPoolSize", &Stub::SetPoolSize, size);
  v1::SetTenantBudgetRequest budget;
  budget.set_tenant(target.tenant);
  budget.mutable_budget()->set_weight(1);
  admin.Refused("SetTenantBudget", &Stub::SetTenantBudget, budget);
  admin.Refused("GetHost", &Stub::GetHost, v1::GetHostRequest());

  const v1::GetStatsResponse stats = admin.Told("GetStats", &Stub::GetStats, v1::GetStatsRequest());
  const bool one = stats.tenants_size() == 1 && stats.held_bytes() == 0 &&
                   stats.charged_bytes() == 0 && stats.pool_free_bytes() == 0;
  attempts.Add("learn of all tenants together: GetStats",
               one ? Verdict::kRefused : Verdict::kSucceeded,
               one ? "daemon: sums are left out" : "sums of all tenants were told");
  v1::ListSequencesRequest sequences;
  sequences.set_tenant(target.tenant);
  admin.Told("ListSequences", &Stub::ListSequences, sequences);
  v1::ListSnapshotsRequest snapshots;
  snapshots.set_tenant(target.tenant);
  admin.Told("ListSnapshots", &Stub::ListSnapshots, snapshots);
  v1::ListPrefixesRequest prefixes;
  prefixes.set_tenant(target.tenant);
  admin.Told("ListPrefixes", &Stub::ListPrefixes, prefixes);
  v1::ListPrefixLookupsRequest lookups;
  lookups.set_tenant(target.tenant);
  admin.Told("ListPrefixLookups", &Stub::ListPrefixLookups, lookups);
  v1::GetHitRateCurvesRequest curves;
  curves.set_tenant(target.tenant);
  admin.Told("GetHitRateCurves", &Stub::GetHitRateCurves, curves);
  admin.Told("ListPolicies", &Stub::ListPolicies, v1::ListPoliciesRequest());
  admin.Told("ListTiers", &Stub::ListTiers, v1::ListTiersRequest());
  admin.verbs.emplace_back("InspectSequence");  // AttackNames()
  AttackWatches(target, admin, attempts);
  return std::move(admin.verbs);
}

}  // namespace kvasir::attack
