// KvCacheService: leases of prefixes.
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
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
    const PendingCall& call, const std::vector<core::LeaseMember>& members,
    const v1::PrefixKey& prefix) {
  KVASIR_ASSIGN_OR_RETURN(const core::SessionToken token,
                          TokenOf(call.context().client_metadata()));
  core::PrefixScopes scopes;
  {
    MutexLock lock(shared_.mutex);
    KVASIR_ASSIGN_OR_RETURN(core::Session* const session,
                            SessionOf(shared_.core, token, call.caller().peer));
    KVASIR_ASSIGN_OR_RETURN(scopes, shared_.core.LeaseScopesOf(*session, members, prefix.salt()));
  }
  return core::HashPrefix(scopes, ToPrefixRequest(prefix), std::this_thread::yield);
}

void KvCacheService::LeasePrefix(RpcCall<v1::LeasePrefixRequest, v1::LeasePrefixResponse>& call) {
  struct State {
    absl::Status random;
    absl::StatusOr<std::vector<core::LeaseMember>> members;
    absl::StatusOr<core::PrefixKeys> keys = absl::UnknownError("");
    core::LeaseLoading loading = {};
    core::LeaseRequest asked = {};
  };
  const v1::LeasePrefixRequest& request = call.request();
  auto state = std::make_shared<State>(State{.random = {}, .members = MembersOf(request)});
  core::LeaseRequest& asked = state->asked;
  state->random = FillRandom(asked.id.bytes.data(), asked.id.bytes.size());
  state->keys = state->members.ok() ? LeaseKeysOf(call, *state->members, request.prefix())
                                    : state->members.status();
  asked.prompt_rows = request.prompt_rows();
  asked.ttl_ms = request.ttl_ms();
  asked.loading = &state->loading;
  Run(
      call,
      [this, &call, state](core::Session& session, bool* done) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(state->random);
        KVASIR_RETURN_IF_ERROR(state->keys.status());
        state->asked.members = &*state->members;
        state->asked.prefix = &*state->keys;
        shared_.core.set_now(SystemClock().Now());  // its time begins behind what was waited for
        KVASIR_ASSIGN_OR_RETURN(const std::optional<core::LeaseAnswer> answer,
                                shared_.core.LeasePrefix(session, state->asked));
        *done = answer.has_value();
        if (!answer) return absl::OkStatus();  // prefixes are on their way up from tiers
        v1::LeasePrefixResponse* const response = call.response();
        response->set_boot_epoch(options_.boot_epoch);
        response->set_rows(answer->rows);
        if (answer->rows == 0) return absl::OkStatus();
        response->set_lease_id(state->asked.id.bytes.data(), state->asked.id.bytes.size());
        response->set_ttl_ms(answer->ttl_ms);
        for (const core::LeaseAnswer::Form& one : answer->forms) {
          v1::LeasedForm* const form = response->add_forms();
          form->set_retention(one.retention);
          form->set_quality(static_cast<v1::QualityClass>(one.quality));
          form->set_is_public(one.is_public);
        }
        return absl::OkStatus();
      },
      [this, &call](const absl::Status& status) {
        // Its thread ends leases whose time is over: there may be one that ends sooner than all
        // others.
        if (status.ok() && call.response()->rows() > 0 && shared_.wake_data_server) {
          shared_.wake_data_server();
        }
      });
}

void KvCacheService::ReleaseLease(
    RpcCall<v1::ReleaseLeaseRequest, v1::ReleaseLeaseResponse>& call) {
  Run(call,
      [this, &call, id = SixteenBytesOf("lease_id", call.request().lease_id())](
          core::Session& session, bool*) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(id.status());
        call.response()->set_boot_epoch(options_.boot_epoch);
        return shared_.core.ReleaseLease(session, {*id});
      });
}

}  // namespace kvasir
