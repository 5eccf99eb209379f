// KvCacheService: leases of prefixes.
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "daemon/control/deadline.h"
#include "daemon/control/kv_cache_service.h"
#include "daemon/control/prefix_convert.h"
#include "daemon/control/wire_id.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

absl::StatusOr<std::vector<core::LeaseMember>> MembersOf(const v1::LeasePrefixRequest& request) {
  std::vector<core::LeaseMember> members;
  for (const v1::LeaseMember& asked : request.members()) {
    core::LeaseMember& member = members.emplace_back();
    KVASIR_ASSIGN_OR_RETURN(
        member.model_fingerprint,
        SixteenBytesOf(fmt::format("members[{}].model_fingerprint", members.size() - 1),
                       asked.model_fingerprint()));
    member.retention = asked.retention();
    KVASIR_ASSIGN_OR_RETURN(member.least_quality, QualityOf(asked.least_quality()));
    member.reads_records = asked.reads_records();
  }
  return members;
}

}  // namespace

absl::StatusOr<core::PrefixKeys> KvCacheService::LeaseKeysOf(
    const grpc::ServerContext& context, const std::vector<core::LeaseMember>& members,
    const v1::PrefixKey& prefix) {
  KVASIR_ASSIGN_OR_RETURN(const CallerRegistry::Caller caller, callers_.CallerOf(context));
  KVASIR_ASSIGN_OR_RETURN(const core::SessionToken token, TokenOf(context));
  // A long prompt is hashed for milliseconds: that is running, too.
  KVASIR_ASSIGN_OR_RETURN(CallSlots::Call call, options_.calls->Enter(caller.slot));
  if (!call.Run(WaitDeadline(context, std::chrono::milliseconds(options_.rpc_deadline_max_ms)))) {
    return DeadlineExceeded("the deadline passed while calls of the same tenant ran");
  }
  core::PrefixScopes scopes;
  {
    MutexLock lock(shared_.mutex);
    KVASIR_ASSIGN_OR_RETURN(core::Session* const session,
                            SessionOf(shared_.core, token, caller.peer));
    KVASIR_ASSIGN_OR_RETURN(scopes, shared_.core.LeaseScopesOf(*session, members, prefix.salt()));
  }
  return core::HashPrefix(scopes, ToPrefixRequest(prefix));
}

grpc::Status KvCacheService::LeasePrefix(grpc::ServerContext* context,
                                         const v1::LeasePrefixRequest* request,
                                         v1::LeasePrefixResponse* response) {
  core::LeaseRequest asked;
  const absl::Status random = FillRandom(asked.id.bytes.data(), asked.id.bytes.size());
  const absl::StatusOr<std::vector<core::LeaseMember>> members = MembersOf(*request);
  const absl::StatusOr<core::PrefixKeys> keys =
      members.ok() ? LeaseKeysOf(*context, *members, request->prefix()) : members.status();
  core::LeaseLoading loading;
  asked.prompt_rows = request->prompt_rows();
  asked.ttl_ms = request->ttl_ms();
  asked.loading = &loading;
  const grpc::Status status =
      Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(random);
        KVASIR_RETURN_IF_ERROR(keys.status());
        asked.members = &*members;
        asked.prefix = &*keys;
        shared_.core.set_now(SystemClock().Now());  // its time begins behind what was waited for
        KVASIR_ASSIGN_OR_RETURN(const std::optional<core::LeaseAnswer> answer,
                                shared_.core.LeasePrefix(session, asked));
        *done = answer.has_value();
        if (!answer) return absl::OkStatus();  // prefixes are on their way up from tiers
        response->set_boot_epoch(options_.boot_epoch);
        response->set_rows(answer->rows);
        if (answer->rows == 0) return absl::OkStatus();
        response->set_lease_id(asked.id.bytes.data(), asked.id.bytes.size());
        response->set_ttl_ms(answer->ttl_ms);
        for (const core::LeaseAnswer::Form& one : answer->forms) {
          v1::LeasedForm* const form = response->add_forms();
          form->set_retention(one.retention);
          form->set_quality(static_cast<v1::QualityClass>(one.quality));
          form->set_is_public(one.is_public);
        }
        return absl::OkStatus();
      });
  // Its thread ends leases whose time is over: there may be one that ends sooner than all others.
  if (status.ok() && response->rows() > 0 && shared_.wake_data_server) shared_.wake_data_server();
  return status;
}

grpc::Status KvCacheService::ReleaseLease(grpc::ServerContext* context,
                                          const v1::ReleaseLeaseRequest* request,
                                          v1::ReleaseLeaseResponse* response) {
  const absl::StatusOr<std::array<uint8_t, 16>> id =
      SixteenBytesOf("lease_id", request->lease_id());
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    KVASIR_RETURN_IF_ERROR(id.status());
    response->set_boot_epoch(options_.boot_epoch);
    return shared_.core.ReleaseLease(session, {*id});
  });
}

}  // namespace kvasir
