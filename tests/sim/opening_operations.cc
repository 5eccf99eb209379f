// How simulated engines come to sequences: private ones, such that go on from prefixes and
// snapshots.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

using Code = absl::StatusCode;

}  // namespace

void World::OpenPrivate() {
  Engine* const engine = EngineWithRoom();
  if (engine == nullptr) return;
  const uint32_t model = AnyModel(*engine);
  if (model == kModels) {
    return Expect(engine->Register(random_.Below32(kModels)),
                  {Code::kResourceExhausted, Code::kDeadlineExceeded});
  }
  const Retention& retention = Fitting(Retentions()[random_.Below(Retentions().size())], model + 1);
  const absl::StatusOr<core::Sequence*> sequence =
      core_->OpenSequence(engine->session(), {engine->model_ids[model],
                                              retention.spec,
                                              retention.prompt_rows,
                                              "sim",
                                              0,
                                              /*reads_records=*/true,
                                              {}});
  if (!sequence.ok()) {
    Count("open refused");
    return Expect(sequence.status(), {Code::kResourceExhausted, Code::kDeadlineExceeded});
  }
  (void)engine->Take(**sequence, model, retention, {});
  Count("opened");
}

const World::Published* World::AnyPublished(const Engine& engine) {
  for (int tries = 0; tries < 4 && !published_.empty(); ++tries) {
    const Published& one = published_[random_.Below(published_.size())];
    const bool own = one.tenant == engine.tenant() || one.tenant == library();
    if (own && engine.model_ids[one.model] != 0) return &one;
  }
  return nullptr;
}

// That texts of the document are likely to be asked for with.
const Retention& World::RetentionOf(uint64_t document) {
  if (random_.OneIn(8)) return Retentions()[random_.Below(Retentions().size())];
  return Retentions()[random_.OneIn(2) ? 0 : document % 12];
}

void World::OpenShared() {
  Engine* const engine = EngineWithRoom();
  if (engine == nullptr || engine->pending) return;
  const uint32_t model = AnyModel(*engine);
  if (model == kModels) return;
  PendingOpen pending;
  const uint64_t document = random_.Below(kDocuments);
  pending.retention = &Fitting(RetentionOf(document), model + 1);
  pending.model = model;
  pending.script = Script(document, 20 + random_.Below(140));
  if (const Published* const known = random_.OneIn(3) ? nullptr : AnyPublished(*engine)) {
    pending.retention = known->retention;
    pending.model = known->model;
    pending.script = known->script;
    for (uint64_t more = random_.Below(40); more > 0; --more) {
      pending.script.push_back(random_.Below32(8));
    }
  }
  Go(*engine, std::move(pending));
}

void World::OpenSaved() {
  Engine* const engine = EngineWithRoom();
  if (engine == nullptr || saved_.empty() || engine->pending) return;
  const Saved& saved =
      saved_[saved_.size() - 1 - random_.Below(std::min<size_t>(6, saved_.size()))];
  if (engine->model_ids[saved.model] == 0) return;
  PendingOpen pending;
  pending.retention = saved.retention;
  pending.model = saved.model;
  pending.snapshot = saved.id;
  pending.text = saved.text;
  if (saved.tenant != engine->tenant()) pending.text = {};  // it must not be opened
  Go(*engine, std::move(pending));
}

void World::Retry() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr || !engine->pending) return;
  PendingOpen pending = *std::move(engine->pending);
  engine->pending.reset();
  pending.loading.gave_up = ++pending.tries > 6;
  Go(*engine, std::move(pending));
}

// Opens what is asked for, or waits for the tier it lies in.
void World::Go(Engine& engine, PendingOpen pending) {
  core::OpenRequest request{engine.model_ids[pending.model],
                            pending.retention->spec,
                            pending.retention->prompt_rows,
                            "sim",
                            0,
                            /*reads_records=*/true,
                            pending.snapshot};
  if (pending.snapshot && random_.OneIn(2)) request.retention.clear();
  core::PrefixKeys keys;
  if (!pending.snapshot) {
    const absl::StatusOr<core::PrefixScopes> scopes =
        core_->ScopesOf(engine.session(), request.model_id, "");
    if (!scopes.ok()) return Expect(scopes.status(), {});
    absl::StatusOr<core::PrefixKeys> hashed = HashPrefix(*scopes, {pending.script, {}, 0});
    if (!hashed.ok()) return Expect(hashed.status(), {});
    keys = *std::move(hashed);
    request.prefix = &keys;
  }
  if (!config_.tiers.empty()) request.loading = &pending.loading;
  const absl::StatusOr<core::Sequence*> opened = core_->OpenSequence(engine.session(), request);
  if (!opened.ok()) {
    if (opened.status().code() == Code::kNotFound && pending.snapshot) {
      Count("snapshot gone");
      return;
    }
    Count("open refused");
    return Expect(opened.status(), {Code::kResourceExhausted, Code::kDeadlineExceeded,
                                    Code::kUnavailable, Code::kDataLoss});
  }
  if (*opened == nullptr) {
    Count("waits for a tier");
    engine.pending = std::move(pending);
    return;
  }
  const core::Sequence& sequence = **opened;
  Text text = std::move(pending.text);
  if (!pending.snapshot) {
    for (uint64_t row = 0; row < sequence.rows(); ++row) text.Add(pending.script[row]);
    text.shared_rows = sequence.rows();
    if (sequence.rows() > 0) Count("gone on from a prefix");
  } else {
    Count("gone on from a snapshot");
  }
  if (sequence.rows() > text.rows()) {
    return findings_.Add("a sequence begins with rows that nobody asked for: tenant={} rows={}",
                         names_[engine.tenant()], sequence.rows());
  }
  const bool shares = sequence.has_chain();
  Stream& stream = engine.Take(sequence, pending.model, *pending.retention, std::move(text));
  stream.shares = shares;
  stream.script = std::move(pending.script);
}

void World::Match() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr) return;
  const uint32_t model = AnyModel(*engine);
  if (model == kModels) return;
  const absl::StatusOr<core::PrefixScopes> scopes =
      core_->ScopesOf(engine->session(), engine->model_ids[model], "");
  if (!scopes.ok()) return Expect(scopes.status(), {});
  const absl::StatusOr<core::PrefixKeys> keys =
      HashPrefix(*scopes, {Script(random_.Below(kDocuments), 160), {}, random_.Below(160)});
  if (!keys.ok()) return Expect(keys.status(), {});
  const auto matches = core_->MatchPrefix(engine->session(), engine->model_ids[model], *keys);
  if (!matches.ok()) return Expect(matches.status(), {});
  for (const core::PrefixMatchOf& match : *matches) {
    const std::string& of = match.tenant->config.name;
    if (of != names_[engine->tenant()] && of != names_[library()]) {
      findings_.Add("a prefix of another tenant is found: tenant={} of={}",
                    names_[engine->tenant()], of);
    }
    Count(match.tier ? "matches in a tier" : "matches in memory");
  }
}

void World::Prefetch() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr) return;
  const uint32_t model = AnyModel(*engine);
  if (model == kModels) return;
  const absl::StatusOr<core::PrefixScopes> scopes =
      core_->ScopesOf(engine->session(), engine->model_ids[model], "");
  if (!scopes.ok()) return Expect(scopes.status(), {});
  const absl::StatusOr<core::PrefixKeys> keys =
      HashPrefix(*scopes, {Script(random_.Below(kDocuments), 160), {}, 0});
  if (!keys.ok()) return Expect(keys.status(), {});
  Expect(core_->PrefetchPrefix(engine->session(), engine->model_ids[model], *keys), {});
}

}  // namespace kvasir::sim
