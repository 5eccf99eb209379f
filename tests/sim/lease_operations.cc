// What simulated engines do with leases.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

using Code = absl::StatusCode;

constexpr size_t kLeasesMax = 32;

}  // namespace

void World::TakeLease() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr) return;
  Lease lease;
  const uint64_t number = ++ids_made_;
  std::memcpy(lease.id.bytes.data(), &number, sizeof(number));
  lease.tenant = engine->tenant();
  lease.owner = engine->session_id();
  const uint64_t document = random_.Below(kDocuments);
  lease.script = Script(document, 40 + random_.Below(120));
  const Published* const known = random_.OneIn(3) ? nullptr : AnyPublished(*engine);
  if (known != nullptr) lease.script = known->script;
  std::vector<core::LeaseMember> members;
  for (uint32_t model = 0; model < kModels; ++model) {
    if (engine->model_ids[model] == 0) continue;
    if (known != nullptr && known->model != model) continue;
    const Retention& retention =
        known != nullptr ? *known->retention : Fitting(RetentionOf(document), model + 1);
    if (retention.prompt_rows > 0) continue;
    lease.retention[model] = &retention;
    members.push_back({engine->session().models.at(engine->model_ids[model])->model.fingerprint(),
                       retention.spec, std::nullopt, /*reads_records=*/true});
  }
  if (members.empty()) return;
  const absl::StatusOr<core::PrefixScopes> scopes =
      core_->LeaseScopesOf(engine->session(), members, "");
  if (!scopes.ok()) return Expect(scopes.status(), {});
  const absl::StatusOr<core::PrefixKeys> keys = HashPrefix(*scopes, {lease.script, {}, 0});
  if (!keys.ok()) return Expect(keys.status(), {});
  core::LeaseRequest request;
  request.id = lease.id;
  request.members = &members;
  request.prefix = &*keys;
  request.ttl_ms = random_.OneIn(2) ? 0 : 1 + random_.Below(2000);
  core::LeaseLoading loading;
  if (!config_.tiers.empty() && random_.OneIn(2)) request.loading = &loading;
  const auto answer = core_->LeasePrefix(engine->session(), request);
  if (!answer.ok()) return Expect(answer.status(), {Code::kResourceExhausted});
  if (!*answer || (*answer)->rows == 0) return;
  lease.rows = (*answer)->rows;
  lease.ends_at = now_ + std::chrono::milliseconds((*answer)->ttl_ms);
  leases_.push_back(std::move(lease));
  if (leases_.size() > kLeasesMax) leases_.erase(leases_.begin());
  Count("leased");
}

void World::OpenLeased() {
  if (leases_.empty()) return;
  const Lease& lease =
      leases_[leases_.size() - 1 - random_.Below(std::min<size_t>(leases_.size(), 4))];
  Engine* engine = AnyEngine();
  for (const auto& one : engines_) {
    if (one->tenant() == lease.tenant && !random_.OneIn(4)) engine = one.get();
  }
  if (engine == nullptr) return;
  const uint32_t model = AnyModel(*engine);
  if (model == kModels || lease.retention[model] == nullptr) return;
  const absl::StatusOr<core::PrefixScopes> scopes =
      core_->ScopesOf(engine->session(), engine->model_ids[model], "");
  if (!scopes.ok()) return Expect(scopes.status(), {});
  const absl::StatusOr<core::PrefixKeys> keys = HashPrefix(*scopes, {lease.script, {}, 0});
  if (!keys.ok()) return Expect(keys.status(), {});
  core::OpenRequest request;
  request.model_id = engine->model_ids[model];
  request.reads_records = true;
  request.label = "sim";
  request.prefix = &*keys;
  request.lease = lease.id;
  const absl::StatusOr<core::Sequence*> opened = core_->OpenSequence(engine->session(), request);
  const bool own = lease.tenant == engine->tenant();
  if (!opened.ok()) {
    const bool lives = own && lease.ends_at > now_ && !core_->HasEnded(lease.owner);
    if (opened.status().code() != Code::kNotFound) {
      return Expect(opened.status(), {Code::kResourceExhausted, Code::kDeadlineExceeded});
    }
    if (lives) {
      findings_.Add("what was leased is lost: tenant={} rows={}", names_[lease.tenant], lease.rows);
    }
    return;
  }
  const core::Sequence& sequence = **opened;
  if (!own || sequence.rows() != lease.rows) {
    return findings_.Add("a lease is opened at other rows, or by others: tenant={} rows={} of={}",
                         names_[engine->tenant()], sequence.rows(), lease.rows);
  }
  Text text;
  for (uint64_t row = 0; row < sequence.rows(); ++row) text.Add(lease.script[row]);
  text.shared_rows = sequence.rows();
  const bool shares = sequence.has_chain();
  Stream& stream = engine->Take(sequence, model, *lease.retention[model], std::move(text));
  stream.shares = shares;
  stream.script = lease.script;
  Count("leased rows opened");
}

void World::ReleaseLease() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr || leases_.empty()) return;
  const size_t at = random_.Below(leases_.size());
  const absl::Status released = core_->ReleaseLease(engine->session(), leases_[at].id);
  if (released.ok() && leases_[at].owner != engine->session_id()) {
    findings_.Add("another session's lease was released: session={}", engine->session_id());
  }
  if (released.ok()) leases_.erase(leases_.begin() + static_cast<ptrdiff_t>(at));
}

}  // namespace kvasir::sim
