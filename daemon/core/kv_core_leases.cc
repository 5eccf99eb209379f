// The verbs on leases: one lookup and one row for all ranks of a request group.
#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/common_prefix.h"
#include "daemon/core/kv_core.h"
#include "index/prefix_scope.h"

#include <fmt/format.h>

namespace kvasir::core {
namespace {

using Fingerprint = std::array<uint8_t, 16>;

// One text for ids that do not exist, for those of others and for those that are over.
absl::Status UnknownLease() { return NotFound("unknown lease of a prefix"); }

std::string HexOf(const Fingerprint& fingerprint) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(fingerprint.data()), 16});
}

absl::Status CheckMembers(const std::vector<LeaseMember>& members) {
  if (members.empty() || members.size() > kLeaseMembersMax) {
    return InvalidArgument("members count is out of bounds: value={} min=1 max={}", members.size(),
                           kLeaseMembersMax);
  }
  for (size_t i = 0; i < members.size(); ++i) {
    for (size_t before = 0; before < i; ++before) {
      if (members[i].model_fingerprint != members[before].model_fingerprint) continue;
      return InvalidArgument(
          "members[{}].model_fingerprint is that of members[{}]: one lease has a model once", i,
          before);
    }
  }
  return absl::OkStatus();
}

// The query is of a prompt that begins with the rows of the chain.
bool LeadsTo(const PrefixQuery& query, const PrefixChain& chain) {
  const size_t chunks = chain.keys().size();
  return std::min<uint64_t>(query.rows_max, query.tokens.size()) >= chain.rows() &&
         query.chain->keys()[chunks - 1] == chain.keys().back() && SameRest(chain, query);
}

std::shared_ptr<const Snapshot> SnapshotAt(const PrefixCache::Hit& hit) {
  return hit.rows == hit.snapshot->rows ? hit.snapshot : hit.snapshot->Cut(hit.rows);
}

}  // namespace

struct KvCore::LeaseGroup {
  struct Member {
    const LeaseMember* asked = nullptr;
    const Model* model = nullptr;
    std::string retention;  // canonical
    ChainKey form;          // that it makes
    bool shareable = false;
    std::span<const std::pair<Tenant*, PrefixChain>> chains;
  };
  std::vector<Member> members;
};

const Model* KvCore::ModelOfTenant(const Session& asking, const Fingerprint& fingerprint) const {
  const auto model_of = [&](const Session& session) -> const Model* {
    for (const auto& [id, registered] : session.models) {
      if (registered->model.fingerprint() == fingerprint) return &registered->model;
    }
    return nullptr;
  };
  if (const Model* const own = model_of(asking)) return own;
  for (const auto& [id, session] : sessions_) {
    if (session->ended || &session->tenant != &asking.tenant) continue;
    if (const Model* const model = model_of(*session)) return model;
  }
  return nullptr;
}

absl::StatusOr<PrefixScopes> KvCore::LeaseScopesOf(const Session& session,
                                                   const std::vector<LeaseMember>& members,
                                                   const std::string& salt) const {
  KVASIR_RETURN_IF_ERROR(CheckMembers(members));
  PrefixScopes scopes;
  scopes.secret = config_.prefix_secret;
  for (size_t i = 0; i < members.size(); ++i) {
    const Model* const model = ModelOfTenant(session, members[i].model_fingerprint);
    if (model == nullptr) {
      return NotFound(
          "members[{}].model_fingerprint is of no model that a session of the tenant has "
          "registered: fingerprint={}",
          i, HexOf(members[i].model_fingerprint));
    }
    const uint32_t vocabulary = model->description().vocabulary_size;
    scopes.vocabulary_size = i == 0 ? vocabulary : std::min(scopes.vocabulary_size, vocabulary);
    KVASIR_RETURN_IF_ERROR(AddScopes(session.tenant, *model, salt, &scopes));
  }
  return scopes;
}

absl::StatusOr<KvCore::LeaseGroup> KvCore::GroupOf(const Session& session,
                                                   const LeaseRequest& request) const {
  const std::vector<LeaseMember>& members = *request.members;
  const std::span chains(request.prefix->chains);
  KVASIR_CHECK(!members.empty() && chains.size() % members.size() == 0,
               "a lease of other members than were hashed: members={} chains={}", members.size(),
               chains.size());
  const size_t of_each = chains.size() / members.size();
  LeaseGroup group;
  for (size_t i = 0; i < members.size(); ++i) {
    LeaseGroup::Member& member = group.members.emplace_back();
    member.asked = &members[i];
    member.model = ModelOfTenant(session, members[i].model_fingerprint);
    if (member.model == nullptr) {
      return NotFound("members[{}]: the last session with the model has ended: fingerprint={}", i,
                      HexOf(members[i].model_fingerprint));
    }
    KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelProfile> profile,
                            ProfileOf(*member.model));
    OpenRequest open;
    open.retention = members[i].retention;
    open.prompt_rows = request.prompt_rows;
    open.reads_records = members[i].reads_records;
    absl::StatusOr<PolicyLanes> lanes = LanesFor(session.tenant, *member.model, profile, open);
    if (!lanes.ok()) {
      return MakeError(lanes.status().code(),
                       fmt::format("members[{}]: {}", i, MessageOf(lanes.status())));
    }
    member.retention = lanes->spec;
    member.form =
        PrefixForm(config_.prefix_secret, lanes->spec, lanes->by_prompt ? request.prompt_rows : 0);
    member.shareable = lanes->shareable;
    member.chains = chains.subspan(i * of_each, of_each);
  }
  return group;
}

std::vector<PrefixMatchOf> KvCore::CommonOf(const Session& session, const LeaseGroup& group,
                                            const PrefixKeys& keys, bool with_tiers) const {
  CommonPrefix common(keys.tokens);
  for (const LeaseGroup::Member& member : group.members) {
    const LeaseMember& asked = *member.asked;
    common.AddMember(member.form, [&](const Snapshot& snapshot, const ChainKey& form) {
      if (!CheckAttachable(session, *member.model, snapshot, asked.reads_records).ok())
        return false;
      return form == member.form || snapshot.quality >= *asked.least_quality;
    });
    if (!member.shareable) continue;
    const auto add = [&](const PrefixCache& cache, Tenant* tenant, const PrefixChain& chain,
                         std::optional<size_t> tier) {
      for (const ChainKey& form : asked.least_quality ? cache.Forms() : std::vector{member.form}) {
        common.AddPlace(cache, {tenant, &chain, form, {}, QualityClass::kFull, tier});
      }
    };
    DeviceMemory* const device = member.model->device();
    for (const auto& [tenant, chain] : member.chains) {
      if (device != nullptr && tenant != &session.tenant) continue;
      add(tenant->PrefixesIn(device), tenant, chain, std::nullopt);
      for (size_t tier = 0; with_tiers && tier < tenant->stores.size(); ++tier) {
        add(tenant->stores[tier]->cache(), tenant, chain, tier);
      }
    }
  }
  const uint64_t rows = common.Find(std::min<uint64_t>(keys.rows_max, keys.tokens.size()));
  return rows == 0 ? std::vector<PrefixMatchOf>() : common.Matches();
}

bool KvCore::AwaitsLoads(const Session& session, const LeaseRequest& request,
                         const LeaseGroup& group, uint64_t rows_there) {
  if (request.loading == nullptr || tiers_.empty()) return false;
  LeaseLoading& loading = *request.loading;
  if (!loading.begun) {  // once a call
    loading.begun = true;
    const std::vector<PrefixMatchOf> matches =
        CommonOf(session, group, *request.prefix, /*with_tiers=*/true);
    if (matches.empty() || matches.front().hit.rows <= rows_there) return false;
    // What is loaded for one member takes the room of no other's.
    std::vector<PrefixPin> pins;
    for (const PrefixMatchOf& match : matches) {
      if (match.tier) continue;
      PrefixCache& cache = match.tenant->PrefixesIn(match.hit.snapshot->device);
      pins.push_back(cache.Pin(*SnapshotAt(match.hit)));
    }
    for (size_t i = 0; i < matches.size(); ++i) {
      if (!matches[i].tier) continue;
      const uint64_t load =
          LoadPrefix(*group.members[i].model, matches[i], request.prefix->tokens, rows_there);
      if (load != 0) loading.loads.push_back(load);
    }
  }
  return std::any_of(loading.loads.begin(), loading.loads.end(),
                     [this](uint64_t load) { return loads_.contains(load); });
}

absl::StatusOr<std::optional<LeaseAnswer>> KvCore::LeasePrefix(Session& session,
                                                               const LeaseRequest& request) {
  LeaseAnswer answer;
  answer.ttl_ms = request.ttl_ms == 0 ? config_.lease_ms_max : request.ttl_ms;
  if (answer.ttl_ms > config_.lease_ms_max) {
    return InvalidArgument("ttl_ms is out of bounds: value={} min=1 max={} (prefix.lease_ms_max)",
                           request.ttl_ms, config_.lease_ms_max);
  }
  (void)EndExpiredLeases();
  if (const uint64_t leases = leases_.CountOf(session.id);
      leases >= config_.leases_per_session_max) {
    return ResourceExhausted(
        "session has too many leases of prefixes: leases={} limits.leases_per_session_max={}",
        leases, config_.leases_per_session_max);
  }
  KVASIR_ASSIGN_OR_RETURN(const LeaseGroup group, GroupOf(session, request));
  std::vector<PrefixMatchOf> matches =
      CommonOf(session, group, *request.prefix, /*with_tiers=*/false);
  answer.rows = matches.empty() ? 0 : matches.front().hit.rows;
  if (AwaitsLoads(session, request, group, answer.rows)) return std::nullopt;
  if (matches.empty()) return answer;
  PrefixLease lease{&session.tenant,
                    session.id,
                    answer.rows,
                    now_ + std::chrono::milliseconds(answer.ttl_ms),
                    {}};
  for (size_t i = 0; i < matches.size(); ++i) {
    const PrefixMatchOf& match = matches[i];
    const LeaseGroup::Member& asked = group.members[i];
    LeasedPrefix& member = lease.members.emplace_back();
    member.model_fingerprint = asked.asked->model_fingerprint;
    member.retention = asked.retention;
    member.asked_form = asked.form;
    member.tenant = match.tenant;
    member.form = match.form;
    member.quality = match.quality;
    member.snapshot = SnapshotAt(match.hit);
    member.entry = match.hit.entry;
    member.pin = match.tenant->PrefixesIn(member.snapshot->device).Pin(*member.snapshot);
    answer.forms.push_back(
        {member.snapshot->retention, match.quality, match.tenant != &session.tenant});
  }
  leases_.Add(request.id, std::move(lease));
  return answer;
}

absl::Status KvCore::ReleaseLease(const Session& session, const PrefixLeaseId& id) {
  const PrefixLease* const lease = LeaseOf(session, id);
  if (lease == nullptr) return UnknownLease();
  if (lease->owner != session.id) {
    return PermissionDenied("the lease is another session's: session={} owner={}", session.id,
                            lease->owner);
  }
  leases_.End(id);
  return absl::OkStatus();
}

const PrefixLease* KvCore::LeaseOf(const Session& session, const PrefixLeaseId& id) const {
  const PrefixLease* const lease = leases_.Find(id);
  const bool there = lease != nullptr && lease->tenant == &session.tenant && lease->ends_at > now_;
  return there ? lease : nullptr;
}

absl::StatusOr<std::optional<LeasedStart>> KvCore::LeasedFor(const Session& session,
                                                             const Model& model,
                                                             const OpenRequest& request) const {
  if (!request.lease) return std::nullopt;
  if (request.prefix == nullptr) {
    return InvalidArgument("a lease is opened with its prompt: prefix is missing");
  }
  const PrefixLease* const lease = LeaseOf(session, *request.lease);
  if (lease == nullptr) return UnknownLease();
  const auto member = std::find_if(
      lease->members.begin(), lease->members.end(),
      [&](const LeasedPrefix& each) { return each.model_fingerprint == model.fingerprint(); });
  if (member == lease->members.end()) {
    return FailedPrecondition("the lease has no member of this model: fingerprint={} members={}",
                              HexOf(model.fingerprint()), lease->members.size());
  }
  const Snapshot& snapshot = *member->snapshot;
  KVASIR_RETURN_IF_ERROR(CheckAttachable(session, model, snapshot, request.reads_records));
  const PrefixKeys& keys = *request.prefix;
  for (const auto& [tenant, chain] : keys.chains) {
    if (tenant != member->tenant) continue;
    if (!LeadsTo({&chain, keys.tokens, keys.rows_max}, *snapshot.chain)) break;
    LeasedStart leased{member->retention, member->asked_form, {}};
    leased.match = {tenant,          &chain,
                    member->form,    {member->snapshot, lease->rows, member->entry},
                    member->quality, std::nullopt};
    return leased;
  }
  return FailedPrecondition(
      "the prompt does not lead to the leased rows: rows={} prefix.tokens={} prefix.rows_max={}",
      lease->rows, keys.tokens.size(), keys.rows_max);
}

absl::StatusOr<PrefixStart> KvCore::StartOf(const Session& session, const Model& model,
                                            const OpenRequest& request, const PolicyLanes& lanes,
                                            const std::optional<LeasedStart>& leased) {
  PrefixStart start;
  start.asked_form =
      PrefixForm(config_.prefix_secret, lanes.spec, lanes.by_prompt ? request.prompt_rows : 0);
  if (leased) {
    if (start.asked_form != leased->asked_form) {
      return FailedPrecondition(
          "the lease was taken with another retention or prompt_rows: retention={} of_lease={} "
          "prompt_rows={}",
          lanes.spec, leased->retention, request.prompt_rows);
    }
    start.found = leased->match;
    return start;
  }
  start.found = FindPrefix(session, model, request, start.asked_form);
  const uint64_t rows = start.found ? start.found->hit.rows : 0;
  start.awaits_load = AwaitsLoad(session, model, request, start.asked_form, rows);
  return start;
}

}  // namespace kvasir::core
