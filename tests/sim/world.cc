#include "tests/sim/world.h"

#include <algorithm>
#include <chrono>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace kvasir::sim {

struct World::Weighted {
  const char* name;
  uint32_t weight;
  Operation run;
};

const std::vector<World::Weighted>& World::Operations() {
  static const std::vector<Weighted> operations = {
      {"connect", 10, &World::Connect},
      {"die", 1, &World::Die},
      {"let go", 14, &World::LetGo},
      {"open private", 14, &World::OpenPrivate},
      {"open shared", 70, &World::OpenShared},
      {"open saved", 16, &World::OpenSaved},
      {"retry", 40, &World::Retry},
      {"close", 60, &World::Close},
      {"compute", 340, &World::Compute},
      {"ask for rows", 20, &World::Ask},
      {"truncate", 24, &World::Truncate},
      {"save", 20, &World::Save},
      {"publish", 40, &World::Publish},
      {"drop snapshot", 4, &World::Drop},
      {"match", 8, &World::Match},
      {"prefetch", 5, &World::Prefetch},
      {"lease", 20, &World::TakeLease},
      {"open leased", 24, &World::OpenLeased},
      {"release lease", 3, &World::ReleaseLease},
      {"refuse extents", 8, &World::Refuse},
      {"hear", 6, &World::Hear},
      {"look around", 4, &World::LookAround},
      {"lie", 4, &World::Lie},
      {"take job", 90, &World::TakeJob},
      {"run a part of a job", 30, &World::RunJob},
      {"finish job", 100, &World::FinishJob},
      {"take tier job", 40, &World::TakeTierJob},
      {"finish tier job", 40, &World::FinishTierJob},
      {"tick", 24, &World::Tick},
      {"settle", 40, &World::Settle},
      {"refill", 2, &World::Refill},
      {"set budgets", 2, &World::SetBudgets},
      {"resize", 1, &World::Resize},
      {"give up cached", 16, &World::GiveUpCached},
      {"drop prefixes", 1, &World::DropPrefixes},
      {"take handover job", 16, &World::TakeHandoverJob},
      {"finish handover job", 16, &World::FinishHandoverJob},
      {"next life", 1, &World::NextLife},
      {"drain", 6, &World::Drain},
  };
  return operations;
}

core::CoreConfig World::Configure() {
  core::CoreConfig config;
  const uint32_t tenants = 3 + random_.Below32(3);
  pool_bytes_ = (160 + random_.Below(256)) * 8 * kKiB;
  for (uint32_t i = 0; i < tenants; ++i) {
    core::TenantConfig tenant;
    tenant.name = i + 1 == tenants ? "library" : std::string(1, static_cast<char>('a' + i));
    tenant.uids = {i + 1};
    tenant.limit_bytes = (32 + random_.Below(96)) * 8 * kKiB;
    tenant.retention = "full";
    tenant.is_public = i + 1 == tenants;
    tenant.stored_bytes = random_.Below(128) * 8 * kKiB;
    if (random_.OneIn(2)) {
      tenant.reserved_bytes =
          std::min(tenant.limit_bytes, pool_bytes_ / tenants * random_.Below(4) / 4);
    }
    tenant.weight = 1 + random_.Below32(4);
    if (random_.OneIn(3)) tenant.degrade = {"full+int8:rows=32,recent=8", "window:size=31"};
    names_.push_back(tenant.name);
    config.tenants.push_back(std::move(tenant));
  }
  config.session_limits = limits_;
  config.sessions_max = 6;
  config.first_extent_bytes = 16 * kKiB << random_.Below(2);
  config.extent_bytes = 32 * kKiB << random_.Below(2);
  for (core::TenantConfig& tenant : config.tenants) {
    tenant.counts.snapshots = 4;
    tenant.counts.prefixes = 12;
    tenant.remote_bytes = 32 * 8 * kKiB;
    tenant.counts.sequences = 10;
  }
  config.prefix_secret.fill(7);
  config.eviction = random_.OneIn(2) ? "return-hazard" : "lru";
  config.write_down_high_percent = 20 + random_.Below32(60);
  config.write_down_low_percent = config.write_down_high_percent / 2;
  config.leases_per_session_max = 3;
  config.lease_ms_max = 2000;
  const uint64_t tiers = random_.Below(3);
  // Less than tenants may have together, so that they have to share.
  const bool scarce = config.tenants.size() % 2 == 0;
  if (tiers > 0) config.tiers.push_back({"disk", false, scarce ? 96 * 8 * kKiB : 0});
  if (tiers > 1) config.tiers.push_back({"remote", true, 0});
  for (uint64_t i = 0; i < tiers; ++i) {
    const uint64_t bytes = (32 + random_.Below(256)) * 8 * kKiB;
    tiers_.push_back(std::make_unique<SimTier>(bytes, 4 + random_.Below(30), findings_));
  }
  ready_bytes_ = random_.OneIn(2) ? 128 * kKiB : 0;
  hands_over_ = random_.OneIn(2);
  if (hands_over_) {
    config.tiers.push_back({"handover", false, 0});
    config.tiers.back().adopted = true;
  }
  return config;
}

World::World(uint64_t seed) : random_(seed) {
  config_ = Configure();
  now_ = Instant() + std::chrono::hours(1);
  StartLife(0);
}

void World::StartLife(uint64_t adopted_bytes) {
  books_ = std::make_unique<ExtentBooks>(static_cast<uint32_t>(names_.size()), findings_);
  HostPoolOptions options;
  options.pool_bytes = pool_bytes_;
  options.extent_bytes = 64 * kKiB;
  options.small_extent_bytes = 16 * kKiB;
  options.ready_bytes = ready_bytes_;
  options.lock = Demand::kOff;
  options.adopted_bytes = adopted_bytes;
  options.first_id = uint64_t{1} << 32 | ++lives_ << 40;
  absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
  KVASIR_CHECK(pool.ok(), "no pool: {}", MessageOf(pool.status()));
  pool_ = *std::move(pool);
  pool_->set_returned([this](uint64_t id) {
    books_->Returned(id);
    kept_.erase(id);
  });
  before_.assign(names_.size(), {});
  core_ = std::make_unique<core::KvCore>(config_, *pool_);
  core_->set_now(now_);
}

World::~World() {
  for (std::unique_ptr<core::SequenceJob>& job : jobs_out_) core_->FinishJob(std::move(job));
  for (TierJobOut& out : tier_jobs_out_) core_->FinishTierJob(std::move(out.job));
  if (handover_job_out_ != nullptr) core_->FinishHandoverJob(std::move(handover_job_out_));
}

void World::Step() {
  static const uint64_t weights = [] {
    uint64_t sum = 0;
    for (const Weighted& one : Operations()) sum += one.weight;
    return sum;
  }();
  ++steps_;
  now_ += std::chrono::microseconds(random_.Below(3000));
  core_->set_now(now_);
  uint64_t at = random_.Below(weights);
  const Weighted* chosen = Operations().data();
  for (; at >= chosen->weight; ++chosen) at -= chosen->weight;
  operation_ = chosen->name;
  (this->*chosen->run)();
  Check();
}

void World::Finish() {
  operation_ = "finish";
  while (!engines_.empty()) Leave(engines_.size() - 1);
  for (bool more = true; more;) {  // what is out, and what waits to be taken
    more = false;
    for (TakeJob(); !jobs_out_.empty(); TakeJob()) FinishJob();
    for (size_t tier = 0; tier < tiers_.size(); ++tier) {
      for (const core::TierLane lane : {core::TierLane::kReads, core::TierLane::kWrites}) {
        if (auto job = core_->TakeTierJob(tier, lane)) tier_jobs_out_.push_back({std::move(job)});
      }
    }
    for (; !tier_jobs_out_.empty(); more = true) FinishTierJob();
    for (TakeHandoverJob(); handover_job_out_ != nullptr; more = true, TakeHandoverJob()) {
      FinishHandoverJob();
    }
  }
  hoard_.clear();
  for (uint32_t tenant = 0; tenant < names_.size(); ++tenant) {
    Engine last(*core_, limits_, {tenant, library(), false}, ++ids_made_, *books_, findings_);
    if (last.session_id() == 0) return findings_.Add("no session can be opened at the end");
    for (const Saved& saved : saved_) {
      if (saved.tenant == tenant) (void)core_->DropSnapshot(last.session(), saved.id);
    }
    core_->EndSession(last.session_id());
  }
  (void)core_->DropPrefixes("");
  while (core_->GiveUpCached(0)) {  // snapshots whose ids are lost
  }
  (void)core_->Settle();
  for (const core::TenantReport& tenant : core_->TenantReports()) {
    if (tenant.held_bytes + tenant.charged_bytes + tenant.sessions + tenant.sequences == 0)
      continue;
    findings_.Add("something is left of a tenant: tenant={} held={} charged={} sessions={}",
                  tenant.name, tenant.held_bytes, tenant.charged_bytes, tenant.sessions);
  }
  const HostPoolCounts counts = pool_->counts();
  if (counts.charged_bytes != 0 || core_->session_count() != 0) {
    findings_.Add("something is left: charged_bytes={} sessions={}", counts.charged_bytes,
                  core_->session_count());
  }
}

std::string World::Figures() const {
  std::string text;
  for (const core::TenantReport& t : core_->TenantReports()) {
    text += fmt::format(
        "  tenant={} held={} charged={} limit={} reserved={} weight={} own={} wanted_back={} "
        "taken_back={} sessions={} sequences={} snapshots={} prefixes={} leases={} violations={}\n",
        t.name, t.held_bytes, t.charged_bytes, t.limit_bytes, t.reserved_bytes, t.weight,
        t.own_bytes, t.wanted_back_bytes, t.taken_back_bytes, t.sessions, t.sequences, t.snapshots,
        t.prefixes, t.prefix_leases, t.counters.violations);
  }
  const HostPoolCounts pool = pool_->counts();
  text +=
      fmt::format("  pool={} charged={} ready={} idle={} over={} jobs_out={} tier_jobs_out={}\n",
                  pool.pool_bytes, pool.charged_bytes, pool.ready_bytes, pool.idle_bytes,
                  pool.over_bytes, jobs_out_.size(), tier_jobs_out_.size());
  return text;
}

void World::Expect(const absl::Status& status, std::initializer_list<absl::StatusCode> allowed) {
  if (status.ok() || std::count(allowed.begin(), allowed.end(), status.code()) > 0) return;
  findings_.Add("an honest engine is refused: {} {}", static_cast<int>(status.code()),
                MessageOf(status));
}

Engine* World::EngineWithRoom() {
  for (size_t tries = 0; tries < 2; ++tries) {
    Engine* const engine = AnyEngine();
    if (engine == nullptr) return nullptr;
    if (engine->streams.size() < limits_.sequences_max || random_.OneIn(8)) return engine;
  }
  return nullptr;
}

Engine* World::AnyEngine() {
  return engines_.empty() ? nullptr : engines_[random_.Below(engines_.size())].get();
}

Stream* World::AnyStream(Engine* engine, bool opened) {
  if (engine == nullptr || engine->streams.empty()) return nullptr;
  Stream& stream = *engine->streams[random_.Below(engine->streams.size())];
  return opened && engine->Opening(stream) ? nullptr : &stream;
}

uint32_t World::AnyModel(const Engine& engine) {
  const uint32_t model = random_.Below32(kModels);
  if (engine.model_ids[model] != 0) return model;
  return engine.model_ids[1 - model] != 0 ? 1 - model : kModels;
}

std::vector<uint32_t> World::Script(uint64_t document, uint64_t rows) const {
  std::vector<uint32_t> tokens(rows);
  // Documents 2i and 2i + 1 part after 60 rows.
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t seed = row < 60 ? document / 2 : document + 1000;
    tokens[row] = static_cast<uint32_t>(Mixed(seed * 1000 + row) % 8);
  }
  return tokens;
}

void World::Leave(size_t engine) {
  if (engines_[engine]->open()) core_->EndSession(engines_[engine]->session_id());
  leaving_.push_back(std::move(engines_[engine]));
  engines_.erase(engines_.begin() + static_cast<ptrdiff_t>(engine));
  if (!core_->IsGone(leaving_.back()->session_id())) Count("ended with a job out");
  DropGone();
}

void World::DropGone() {
  std::erase_if(leaving_, [this](const std::unique_ptr<Engine>& engine) {
    if (!core_->IsGone(engine->session_id())) return false;
    for (UniqueFd& fd : engine->held) hoard_.push_back(std::move(fd));
    return true;
  });
}

}  // namespace kvasir::sim
