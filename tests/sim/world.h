// World: a core, engines of a few tenants on it, tiers below it, and a clock, all of which one seed
// decides. A step is one operation of somebody, after which the books are compared with others that
// are kept here (checks.cc).
//
// No thread, no network, no clock of the machine. Memory is real: extents are memfds.
#ifndef KVASIR_TESTS_SIM_WORLD_H_
#define KVASIR_TESTS_SIM_WORLD_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "allocator/host_pool.h"
#include "base/clock.h"
#include "daemon/core/tenant_verbs.h"
#include "tests/sim/engine.h"
#include "tests/sim/sim_tier.h"

namespace kvasir::sim {

class World {
 public:
  explicit World(uint64_t seed);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // One operation and the checks behind it. REQUIRES: !findings().any().
  void Step();
  // Ends everything; nothing may be left.
  void Finish();

  const Findings& findings() const { return findings_; }
  uint64_t steps() const { return steps_; }
  const char* operation() const { return operation_; }
  // Figures of tenants and pool, a line each.
  std::string Figures() const;
  // Of everything that has happened: equal for equal seeds.
  uint64_t digest() const { return digest_; }
  // How often what was reached.
  const std::map<std::string, uint64_t>& counts() const { return counts_; }

 private:
  using Operation = void (World::*)();
  struct Weighted;
  static const std::vector<Weighted>& Operations();
  struct Saved {
    core::SnapshotId id;
    uint32_t tenant = 0, model = 0;
    const Retention* retention = nullptr;
    Text text;
  };
  struct Published {
    uint32_t tenant = 0, model = 0;
    const Retention* retention = nullptr;
    std::vector<uint32_t> script;
  };
  struct Lease {
    core::PrefixLeaseId id;
    uint32_t tenant = 0, owner = 0;
    uint64_t rows = 0;
    Instant ends_at;
    std::vector<uint32_t> script;
    std::array<const Retention*, kModels> retention{};  // null: no member
  };
  struct TierJobOut {
    std::unique_ptr<core::TierJob> job;
    bool done = false;
  };
  struct Record {
    ChainKey tenant;
    core::StoredPrefix prefix;
  };
  // What checks remember of a tenant from the step before.
  struct Before {
    uint64_t charged = 0, taken_back = 0, limit = 0, violations = 0;
  };
  // Of one that lies: what must not change for others.
  struct OfOthers {
    uint64_t held = 0, charged = 0, violations = 0, snapshots = 0, prefixes = 0;
    uint32_t sessions = 0, sequences = 0;
    friend bool operator==(const OfOthers&, const OfOthers&) = default;
  };

  core::CoreConfig Configure();
  // With so many bytes of extents that are taken over.
  void StartLife(uint64_t adopted_bytes);
  void Count(const char* what) { ++counts_[what]; }
  // An error that an honest engine never gets, unless it is one of these.
  void Expect(const absl::Status& status, std::initializer_list<absl::StatusCode> allowed);
  uint32_t library() const { return static_cast<uint32_t>(names_.size()) - 1; }

  Engine* AnyEngine();
  Engine* EngineWithRoom();  // for one stream more, most of the time; null: there is none
  Stream* AnyStream(Engine* engine, bool opened = true);
  uint32_t AnyModel(const Engine& engine);  // kModels: it has none
  static constexpr uint64_t kDocuments = 6;
  // What the engine may find a prefix of; null: nothing of late.
  const Published* AnyPublished(const Engine& engine);
  const Retention& RetentionOf(uint64_t document);
  // The first rows of a document.
  std::vector<uint32_t> Script(uint64_t document, uint64_t rows) const;
  void Leave(size_t engine);
  void DropGone();

  // Operations of engines (engine_operations.cc).
  void Connect();
  void Die();
  void LetGo();
  void Close();
  void Compute();
  void Ask();
  void Truncate();
  void Save();
  void Publish();
  void Drop();
  void Refuse();
  void Hear();
  void LookAround();
  void Sync(Engine& engine, Stream& stream, uint64_t more);
  void SaveOrPublish(Engine& engine, Stream& stream);
  void EndStream(Engine& engine, const Stream& stream);

  // That lead to sequences (opening_operations.cc).
  void OpenPrivate();
  void OpenShared();
  void OpenSaved();
  void Retry();
  void Match();
  void Prefetch();
  void Go(Engine& engine, PendingOpen pending);

  // With leases (lease_operations.cc).
  void TakeLease();
  void OpenLeased();
  void ReleaseLease();

  // Of engines that lie (lies.cc).
  void Lie();
  void LieOnDesk(Engine& engine, Stream& stream);
  void LieInCalls(Engine& engine, Stream& stream);
  void Spoil(Engine& engine, Stream& stream);
  std::vector<OfOthers> FiguresOfOthers(uint32_t tenant) const;

  // In every other step what the daemon does under a tenant's share alone is tried so first.
  bool TriesShare() const { return steps_ % 2 == 0; }
  core::TenantVerbs Verbs() { return core::TenantVerbs(*core_, 0, 1); }  // of all tenants

  // Of the daemon around the core (daemon_operations.cc).
  void TakeJob();
  void RunJob();
  void FinishJob();
  void TakeTierJob();
  void FinishTierJob();
  void Tick();
  void Settle();
  void Refill();
  void SetBudgets();
  void Resize();
  void GiveUpCached();
  void DropPrefixes();
  void Drain();

  // Between processes (lives.cc).
  void TakeHandoverJob();
  void FinishHandoverJob();
  void WriteDown(core::HandoverJob& job);
  void NextLife();
  core::Adoption WhatIsLeft();

  // After each step (checks.cc).
  void Check();
  void CheckEngines();
  void CheckFigures();
  void CheckGroups();

  Random random_;
  Findings findings_;
  const core::SessionLimits limits_{4, 2, 64, 8, 1 << 9, 32 << 10, {64, 64, 4096, 4096, 0, 0}};
  uint64_t pool_bytes_ = 0;
  std::vector<std::string> names_;  // of tenants; the last one shares its prefixes
  core::CoreConfig config_;
  bool hands_over_ = false;
  uint64_t ready_bytes_ = 0, lives_ = 0;
  std::unique_ptr<HostPool> pool_;
  std::unique_ptr<ExtentBooks> books_;
  std::vector<std::unique_ptr<Engine>> engines_, leaving_;
  std::vector<std::unique_ptr<SimTier>> tiers_;
  std::unique_ptr<core::KvCore> core_;  // goes before the engines that it writes to
  std::vector<std::unique_ptr<core::SequenceJob>> jobs_out_;
  std::vector<TierJobOut> tier_jobs_out_;
  std::unique_ptr<core::HandoverJob> handover_job_out_;
  std::map<uint64_t, Record> records_;  // for the next process, by number
  std::map<uint64_t, UniqueFd> kept_;   // likewise, extents by id
  std::vector<UniqueFd> hoard_;         // descriptors that processes keep whose sessions have ended
  std::vector<Saved> saved_;            // some are gone
  std::vector<Lease> leases_;           // likewise
  std::vector<Published> published_;    // the last ones, of which some are gone
  std::vector<Before> before_;
  std::vector<Engine::NamedGroup> named_;
  Instant now_;
  std::vector<std::pair<uint32_t, uint64_t>> given_up_;  // tenant and id: sequences with a job out
  uint64_t steps_ = 0, ids_made_ = 0, digest_ = 0;
  const char* operation_ = "start";
  std::map<std::string, uint64_t> counts_;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_WORLD_H_
