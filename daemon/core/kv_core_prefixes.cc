// The verbs on prefixes: found by their tokens, gone on from, published.
#include <algorithm>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/kv_core_moves.h"
#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

constexpr size_t kLookupsRemembered = 256;  // of each tenant
constexpr size_t kPieceTokens = 8192;       // between pauses of HashPrefix()

// Who has a device's memory may write it: of another tenant's nobody gets any.
bool SharesMemory(const Session& session, const Model& model, const Tenant& of) {
  return model.device() == nullptr || &of == &session.tenant;
}

}  // namespace

absl::StatusOr<PrefixScopes> KvCore::ScopesOf(Session& session, uint32_t model_id,
                                              const std::string& salt) const {
  const auto found = session.models.find(model_id);
  if (found == session.models.end()) return NotFound("unknown model: model_id={}", model_id);
  const Model& model = found->second->model;
  PrefixScopes scopes;
  scopes.secret = config_.prefix_secret;
  scopes.vocabulary_size = model.description().vocabulary_size;
  KVASIR_RETURN_IF_ERROR(AddScopes(session.tenant, model, salt, &scopes));
  return scopes;
}

absl::Status KvCore::AddScopes(Tenant& own, const Model& model, const std::string& salt,
                               PrefixScopes* scopes) const {
  if (salt.size() > kSaltBytesMax) {
    return InvalidArgument("prefix.salt is too long: bytes={} max={}", salt.size(), kSaltBytesMax);
  }
  const auto add = [&](Tenant& tenant) {
    scopes->scopes.emplace_back(
        &tenant, PrefixScope(config_.prefix_secret, tenant.config.name, model.fingerprint(), salt));
  };
  add(own);
  for (const auto& tenant : tenants_) {
    if (!tenant->config.is_public || tenant.get() == &own) continue;
    const bool has_some =
        !tenant->prefixes.entries().empty() ||
        std::any_of(tenant->stores.begin(), tenant->stores.end(),
                    [](const auto& store) { return !store->cache().entries().empty(); });
    if (has_some) add(*tenant);
  }
  return absl::OkStatus();
}

absl::StatusOr<PrefixKeys> HashPrefix(const PrefixScopes& scopes, PrefixRequest request,
                                      absl::FunctionRef<void()> pause) {
  if (request.tokens.size() > kPrefixTokensMax) {
    return InvalidArgument("prefix.tokens is too long: tokens={} max={}", request.tokens.size(),
                           kPrefixTokensMax);
  }
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] < scopes.vocabulary_size) continue;
    return InvalidArgument("prefix.tokens[{}] is beyond the vocabulary: token={} max={}", i,
                           request.tokens[i], scopes.vocabulary_size - 1);
  }
  PrefixKeys keys;
  keys.rows_max = request.rows_max == 0 ? request.tokens.size() : request.rows_max;
  for (const auto& [tenant, scope] : scopes.scopes) {
    KVASIR_ASSIGN_OR_RETURN(PrefixChain chain,
                            PrefixChain::Create(scopes.secret, scope, request.extras));
    std::span<const TokenId> left = request.tokens;
    while (!left.empty()) {
      const size_t piece = std::min<size_t>(left.size(), kPieceTokens);
      chain.Append(left.first(piece));
      left = left.subspan(piece);
      pause();
    }
    keys.chains.emplace_back(tenant, std::move(chain));
  }
  keys.tokens = std::move(request.tokens);
  return keys;
}

absl::Status KvCore::CheckAttachable(const Session& session, const Model& model,
                                     const Snapshot& snapshot, bool reads_records) const {
  KVASIR_RETURN_IF_ERROR(snapshot.CheckModel(model));
  return CheckFits(session, snapshot, reads_records);
}

absl::Status KvCore::CheckFits(const Session& session, const Snapshot& snapshot,
                               bool reads_records) {
  if (snapshot.encoded && !reads_records) {
    return FailedPrecondition("the engine does not read encoded rows: retention={}",
                              snapshot.retention);
  }
  if (snapshot.lanes.size() > session.limits.lanes_max) {
    return ResourceExhausted("snapshot has too many lanes: lanes={} limits.lanes_max={}",
                             snapshot.lanes.size(), session.limits.lanes_max);
  }
  return absl::OkStatus();
}

std::vector<PrefixMatchOf> KvCore::MatchForms(const Session& session, const Model& model,
                                              const PrefixKeys& keys, bool reads_records,
                                              bool with_tiers) const {
  const auto fits = [&](const Snapshot& snapshot) {
    return Moves::Check(*this, session, model, snapshot, reads_records).ok();
  };
  std::vector<PrefixMatchOf> found;
  for (const auto& [tenant, chain] : keys.chains) {
    if (!SharesMemory(session, model, *tenant)) continue;
    const auto add_of = [&, tenant = tenant, chain = &chain](const PrefixCache& cache,
                                                             std::optional<size_t> tier) {
      for (const ChainKey& form : cache.Forms()) {
        PrefixCache::Hit hit = cache.Match({chain, keys.tokens, keys.rows_max}, form, fits);
        if (hit.snapshot == nullptr) continue;
        const QualityClass quality = hit.snapshot->quality;
        found.push_back({tenant, chain, form, std::move(hit), quality, tier});
      }
    };
    add_of(tenant->PrefixesIn(model.device()), std::nullopt);
    if (!with_tiers) continue;
    for (const PrefixCache* cache : Moves::Elsewhere(session, model, *tenant)) {
      add_of(*cache, std::nullopt);
    }
    for (size_t tier = 0; tier < tenant->stores.size(); ++tier) {
      add_of(tenant->stores[tier]->cache(), tier);
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return a.hit.rows != b.hit.rows ? a.hit.rows > b.hit.rows : a.quality > b.quality;
  });
  return found;
}

absl::StatusOr<std::vector<PrefixMatchOf>> KvCore::MatchPrefix(Session& session, uint32_t model_id,
                                                               const PrefixKeys& keys) const {
  const auto found = session.models.find(model_id);
  if (found == session.models.end()) return NotFound("unknown model: model_id={}", model_id);
  return MatchForms(session, found->second->model, keys, /*reads_records=*/true,
                    /*with_tiers=*/true);
}

std::optional<PrefixMatchOf> KvCore::FindPrefix(const Session& session, const Model& model,
                                                const OpenRequest& request,
                                                const ChainKey& form) const {
  const auto fits = [&](const Snapshot& snapshot) {
    return CheckAttachable(session, model, snapshot, request.reads_records).ok();
  };
  const PrefixKeys& keys = *request.prefix;
  std::optional<PrefixMatchOf> best;
  for (const auto& [tenant, chain] : keys.chains) {
    if (!SharesMemory(session, model, *tenant)) continue;
    PrefixCache::Hit hit =
        tenant->PrefixesIn(model.device()).Match({&chain, keys.tokens, keys.rows_max}, form, fits);
    if (hit.snapshot == nullptr || (best && best->hit.rows >= hit.rows)) continue;
    const QualityClass quality = hit.snapshot->quality;
    best = PrefixMatchOf{tenant, &chain, form, std::move(hit), quality, std::nullopt};
  }
  if (!request.least_quality) return best;
  // The longest of those that are good enough; among equals what was asked for, then the best.
  for (PrefixMatchOf& other :
       MatchForms(session, model, keys, request.reads_records, /*with_tiers=*/false)) {
    if (other.quality < *request.least_quality) continue;
    if (!best || other.hit.rows > best->hit.rows) best = std::move(other);
    break;
  }
  return best;
}

void KvCore::SharePrefix(Sequence& sequence, const OpenRequest& request,
                         const std::string& retention, const ChainKey& form,
                         const std::optional<PrefixMatchOf>& found) {
  const PrefixKeys& keys = *request.prefix;
  const PrefixChain& own = keys.chains.front().second;  // in the scope of its own tenant
  Tenant& tenant = sequence.tenant();
  const uint64_t rows = sequence.rows();

  PrefixLookup lookup;
  lookup.sequence_id = sequence.identity().id;
  lookup.model = sequence.model().description().name;
  lookup.retention = retention;
  lookup.label = request.label;
  if (found) lookup.form = sequence.identity().retention;
  lookup.form_condensed_from = sequence.identity().condensed_from;
  lookup.is_public = found && found->tenant != &tenant;
  lookup.rows = keys.tokens.size();
  lookup.rows_hit = rows;
  const PrefixQuery query{&own, keys.tokens, keys.rows_max};
  lookup.why = Explain(
      tenant.PrefixesIn(sequence.device()),
      {&query, form, &retention, sequence.model().fingerprint(), rows, request.lease.has_value()},
      now_);
  lookup.at = now_;
  std::deque<PrefixLookup>& lookups = prefix_lookups_[&tenant];
  lookups.push_back(std::move(lookup));
  if (lookups.size() > kLookupsRemembered) lookups.pop_front();
  ++tenant.counters.prefix_lookups;
  tenant.counters.prefix_rows += keys.tokens.size();
  tenant.counters.prefix_rows_hit += rows;
  if (found) ++tenant.counters.prefix_hits;
  if (!sequence.on_device()) {
    tenant.demand.Asked(own, form, keys.rows_max, sequence.model().token_bytes());
  }
  sequence.SetTraceTicket(traces_.Begin(tenant.config.name, own));

  PrefixChain chain = own;
  const std::span<const TokenId> tokens = keys.tokens;
  chain.Truncate(rows, tokens.subspan(rows - rows % kChunkTokens, rows % kChunkTokens));
  sequence.SetChain(std::move(chain));
  if (found) {
    PrefixCache& cache = found->tenant->PrefixesIn(sequence.device());
    sequence.SetPrefixUse(cache.Use(*found->chain, found->form, found->hit));
    tier_hint_ = true;
  }
}

absl::StatusOr<std::vector<PrefixLookup>> KvCore::PrefixLookups(const std::string& name) const {
  for (const auto& tenant : tenants_) {
    if (tenant->config.name != name) continue;
    const auto found = prefix_lookups_.find(tenant.get());
    if (found == prefix_lookups_.end()) return std::vector<PrefixLookup>();
    return std::vector<PrefixLookup>(found->second.begin(), found->second.end());
  }
  return NotFound("unknown tenant: tenant={}", name);
}

std::vector<PrefixReport> KvCore::PrefixReports() const {
  std::map<std::pair<const PrefixCache*, uint64_t>, uint64_t> leases;  // by entry
  for (const auto& [lease_id, lease] : leases_.all()) {
    for (const LeasedPrefix& member : lease.members) {
      const PrefixCache& cache = member.tenant->PrefixesIn(member.snapshot->device);
      for (const uint64_t id : cache.EntriesAt(*member.snapshot)) ++leases[{&cache, id}];
    }
  }
  std::vector<PrefixReport> reports;
  for (const auto& tenant : tenants_) {
    const auto add_of = [&](const PrefixCache& cache, const std::string& place) {
      for (const auto& [id, entry] : cache.entries()) {
        const Snapshot& snapshot = *entry.snapshot;
        const uint64_t bytes =
            snapshot.stored != nullptr ? snapshot.stored->bytes() : snapshot.held_bytes();
        reports.push_back({tenant->config.name, snapshot.model.name, snapshot.retention,
                           snapshot.label, place, id, snapshot.rows, snapshot.first_rows, bytes,
                           entry.hits, entry.made_at, snapshot.condensed_from});
        if (const auto of = leases.find({&cache, id}); of != leases.end()) {
          reports.back().leases = of->second;
        }
      }
    };
    add_of(tenant->prefixes, "memory");
    for (const auto& device : tenant->devices) {
      add_of(device->prefixes, device->account.memory().name());
    }
    for (size_t tier = 0; tier < tenant->stores.size(); ++tier) {
      add_of(tenant->stores[tier]->cache(), config_.tiers[tier].name);
    }
  }
  return reports;
}

absl::StatusOr<uint64_t> KvCore::DropPrefixes(const std::string& name) {
  uint64_t dropped = 0;
  bool known = name.empty();
  for (const auto& tenant : tenants_) {
    if (!name.empty() && tenant->config.name != name) continue;
    known = true;
    dropped += tenant->DropPrefixes();
  }
  if (!known) return NotFound("unknown tenant: tenant={}", name);
  return dropped;
}

std::string KvCore::SaveLearned(const std::string& name) const {
  for (const auto& tenant : tenants_) {
    if (tenant->config.name == name) return tenant->prefixes.policy().SaveLearned();
  }
  return {};
}

absl::Status KvCore::RestoreLearned(const std::string& name, std::string_view bytes) {
  for (const auto& tenant : tenants_) {
    if (tenant->config.name == name) return tenant->prefixes.RestoreLearned(bytes);
  }
  return NotFound("unknown tenant: tenant={}", name);
}

SaveAnswer KvCore::PublishPrefix(Session& session, uint32_t slot, uint32_t uid, bool* asked) {
  SaveAnswer answer;
  const absl::StatusOr<Sequence*> found = LookAtIdle(session, slot, uid);
  answer.status = found.status();
  if (!found.ok() || *found == nullptr) return answer;
  Sequence& sequence = **found;
  if (!sequence.has_chain()) {
    answer.status = FailedPrecondition(
        "the sequence was not opened with a prefix, or its rows may not be shared: retention={}",
        sequence.identity().retention);
    return answer;
  }
  absl::StatusOr<std::shared_ptr<const Snapshot>> saved = SealAndSave(sequence, asked);
  answer.status = saved.status();
  if (!saved.ok() || *saved == nullptr) return answer;
  answer.rows = (*saved)->rows;
  answer.held_bytes = (*saved)->held_bytes();
  if (!sequence.on_device()) session.tenant.demand.Published(**saved);
  PrefixCache& cache = session.tenant.PrefixesIn(sequence.device());
  answer.status = cache.Add(*std::move(saved), sequence.prefix_use()).status();
  answer.ready = answer.status.ok();
  tier_hint_ = true;
  Degrade(session.tenant);
  return answer;
}

}  // namespace kvasir::core
