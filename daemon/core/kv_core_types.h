// What callers of KvCore say and are told: its configuration, requests, answers and reports. Plain
// values.
#ifndef KVASIR_DAEMON_CORE_KV_CORE_TYPES_H_
#define KVASIR_DAEMON_CORE_KV_CORE_TYPES_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "daemon/core/offload_counters.h"
#include "daemon/core/prefix_explanation.h"
#include "daemon/core/session.h"
#include "daemon/core/tenant_rules.h"
#include "eviction/learned_state.h"
#include "policies/preemption/suspension_order.h"

namespace kvasir::core {

// What is bounded by number comes back when somebody closes something.
inline constexpr std::chrono::milliseconds kCountRetry{1000};

inline constexpr uint64_t kPrefixTokensMax = uint64_t{1} << 20;
inline constexpr size_t kLeaseMembersMax = 32;
inline constexpr uint64_t kLearnedBytesMax = eviction::kLearnedBytesMax;  // of RestoreLearned()

struct TierConfig {
  std::string name;             // "disk", "remote"
  bool shared = false;          // other hosts write there too, and it makes room by itself
  uint64_t capacity_bytes = 0;  // of all tenants; 0: no more than each may have
  // No tier but memory that a process before has left: prefixes that are not verified yet. Last.
  bool adopted = false;
};

struct CoreConfig {
  std::vector<TenantConfig> tenants;
  std::string default_tenant;  // for peers that no tenant names; "": refused
  SessionLimits session_limits;
  uint32_t sessions_max = 1024;
  uint64_t first_extent_bytes = 4ULL << 20;
  uint64_t extent_bytes = 32ULL << 20;
  std::vector<std::shared_ptr<const ModelProfile>> profiles;  // of different weights
  ChainHasher::Secret prefix_secret{};  // random, so that nobody can search for equal keys
  std::string eviction = "return-hazard";
  std::vector<TierConfig> tiers;  // the faster ones first
  // Of a tenant's limit: cached rows above the one go down until they are below the other.
  uint32_t write_down_high_percent = 80;
  uint32_t write_down_low_percent = 60;
  uint32_t leases_per_session_max = 64;
  uint32_t lease_ms_max = 60'000;
  uint32_t take_back_ms = 150;              // that sessions have when lent memory is wanted back
  uint32_t starving_ms = 30'000;            // sequences whose requests are older are suspended last
  std::vector<DeviceMemory*> devices = {};  // pools of devices; all outlive the core
};

// Whose peers are, by place in `config.tenants`.
TenantRules RulesOf(const CoreConfig& config);

// The scopes in which a session may find prefixes: its tenant's, then those of public tenants.
struct PrefixScopes {
  ChainHasher::Secret secret{};
  uint32_t vocabulary_size = 0;
  std::vector<std::pair<Tenant*, ChainKey>> scopes;  // tenants live as long as the core
};

// What an engine says about a prefix, unchecked.
struct PrefixRequest {
  std::vector<TokenId> tokens;
  std::vector<TokenExtra> extras;
  uint64_t rows_max = 0;  // no more are wanted; 0: as many as there are tokens
};

struct PrefixKeys {
  std::vector<TokenId> tokens;
  uint64_t rows_max = 0;
  std::vector<std::pair<Tenant*, PrefixChain>> chains;  // the session's tenant first
};

// Takes no lock and needs none. Errors: kInvalidArgument naming field and bound. Cost: about 100 ns
// a chunk and scope, so that a long prompt takes milliseconds: `pause` is called every 50 us or so,
// for a thread that lets others go first.
absl::StatusOr<PrefixKeys> HashPrefix(
    const PrefixScopes& scopes, PrefixRequest request, absl::FunctionRef<void()> pause = [] {});

// A form in which a prefix was found. `chain` points into the keys that were asked with.
struct PrefixMatchOf {
  Tenant* tenant = nullptr;
  const PrefixChain* chain = nullptr;
  ChainKey form;
  PrefixCache::Hit hit;
  QualityClass quality = QualityClass::kFull;
  std::optional<size_t> tier;  // it lies there; nothing: in memory, or on a device
};

// 128 random bits: who has them and is of the tenant may open sequences with the lease.
struct PrefixLeaseId {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const PrefixLeaseId&, const PrefixLeaseId&) = default;
};

// What a sequence that is opened with a lease goes on from.
struct LeasedStart {
  std::string retention;  // that was asked for
  ChainKey asked_form;    // that it makes
  PrefixMatchOf match;
};

// What a sequence that shares rows goes on from.
struct PrefixStart {
  ChainKey asked_form;  // that its retention makes
  std::optional<PrefixMatchOf> found;
  bool awaits_load = false;
};

// A model that goes through a leased prompt, as one says it who knows its fingerprint alone.
struct LeaseMember {
  std::array<uint8_t, 16> model_fingerprint{};  // of a model that some session of the tenant has
  std::string retention;                        // "": the tenant's default
  std::optional<QualityClass> least_quality = {};
  bool reads_records = false;
};

// What one call that takes a lease waits for: prefixes on their way up from tiers.
struct LeaseLoading {
  bool begun = false;
  std::vector<uint64_t> loads = {};
};

// All of it must outlive the call.
struct LeaseRequest {
  PrefixLeaseId id;                              // random
  const std::vector<LeaseMember>* members = {};  // 1 to kLeaseMembersMax, of different models
  const PrefixKeys* prefix = nullptr;            // in the scopes of LeaseScopesOf() the members
  uint64_t prompt_rows = 0;                      // as OpenRequest's
  uint64_t ttl_ms = 0;                           // 0: CoreConfig::lease_ms_max
  // The caller waits for what lies in a tier, and asks again; null: what is in memory is enough.
  LeaseLoading* loading = nullptr;
};

struct LeaseAnswer {
  uint64_t rows = 0;  // 0: the members have no row in common, and there is no lease
  uint64_t ttl_ms = 0;
  struct Form {
    std::string retention;
    QualityClass quality = QualityClass::kFull;
    bool is_public = false;
  };
  std::vector<Form> forms = {};  // of each member
};

// What one call that opens a sequence waits for: a prefix on its way up from a tier.
struct PrefixLoading {
  uint64_t load = 0;     // from a tier; 0: nothing was begun
  uint64_t move = 0;     // from a device or to one; 0: likewise
  bool gave_up = false;  // the caller does not wait any longer: what comes up is for later ones
};

struct ModelHandle {
  uint32_t model_id = 0;
  const Model* model = nullptr;
  ExtentTable::Ref probe_extent;
  uint64_t probe_offset = 0;
};

// What an engine says about the request behind a sequence, unchecked.
struct SequenceHints {
  preemption::Hints hints = {};
  uint64_t age_ms = 0;  // since the request came in, as of this call
};
// Errors: kInvalidArgument naming field and bound.
absl::Status CheckHints(const SequenceHints& said);

struct OpenRequest {
  uint32_t model_id = 0;
  std::string retention;  // "": the tenant's default
  uint64_t prompt_rows = 0;
  std::string label;
  uint64_t max_rows = 0;  // 0: no bound
  bool reads_records = false;
  std::optional<SnapshotId> snapshot = {};  // go on from it
  uint64_t snapshot_rows = 0;               // at this row; 0: its last
  const PrefixKeys* prefix =
      nullptr;  // go on from the longest cached prefix; null: rows are private
  // Also from other forms of it that are at least this good, where they are longer.
  std::optional<QualityClass> least_quality = {};
  // The caller waits for what lies in a tier, and asks again; null: what is in memory is enough.
  PrefixLoading* loading = nullptr;
  // Goes on from what this lease has for the model, at its row; `least_quality` is the lease's
  // then. Retention and prompt_rows are those that were leased with, or no retention.
  std::optional<PrefixLeaseId> lease = {};
  SequenceHints hints = {};
};

struct SyncNeed {
  uint32_t slot = 0;
  uint32_t uid = 0;
  uint64_t granted_rows = 0;
  std::optional<uint64_t> table_row;
};

struct SyncAnswer {
  absl::Status status;
  bool ready = false;  // false and OK: wait for a job, then ask again
  uint64_t granted_rows = 0;
  uint64_t published_version = 0;
  uint64_t unseen_bytes = 0;  // held for the sequence and named by no table
};

// Answers of verbs that may have to wait: `ready` false and OK means ask again.
struct TruncateAnswer {
  absl::Status status;
  bool ready = false;  // false and OK: a copy is under way, ask again
  uint32_t uid = 0;
  uint64_t rollback_floor = 0;
};

struct SelectAnswer {
  absl::Status status;
  bool ready = false;  // false and OK: the selection is under way, ask again
  uint32_t uid = 0;
  std::vector<uint32_t> rows;
};

struct RetrieveAnswer {
  absl::Status status;
  bool ready = false;  // false and OK: the lookup is under way, ask again
  std::vector<Sequence::RetrievedBlock> blocks;
};

struct SaveAnswer {
  absl::Status status;
  bool ready = false;  // false and OK: the copy is under way, ask again
  uint64_t rows = 0;
  uint64_t held_bytes = 0;
};

struct SequenceReport {
  Sequence::Identity identity;
  SequenceSummary summary;
  std::string tenant, model;
  uint32_t session_id = 0, pid = 0, layers = 0;
  preemption::Hints hints;
  uint64_t request_age_ms = 0;
  bool suspend_wanted = false;
};

// What a tenant has of one device's pool.
struct DeviceReport {
  std::string pool;
  uint64_t held_bytes = 0, charged_bytes = 0, waste_bytes = 0;
  uint64_t own_bytes = 0;  // of the pool, however much the others want
  DeviceBudget budget;
  OffloadCounters offloads;
};

struct TenantReport {
  std::string name;
  uint64_t held_bytes = 0, charged_bytes = 0, limit_bytes = 0;
  uint64_t reserved_bytes = 0;
  uint32_t weight = 1;
  uint64_t own_bytes = 0;  // of the pool, however much the others want
  uint64_t wanted_back_bytes = 0;
  uint64_t taken_back_bytes = 0;  // of charged_bytes, that somebody holds on to
  uint32_t sessions = 0, sequences = 0, models = 0;
  Budget budget;
  // Of the last responses that an engine has foretold: how many, and how well (Kendall's tau-b).
  uint64_t foretold = 0;
  std::optional<double> foretold_tau;
  uint64_t typical_response_rows = 0;
  uint64_t rows_seen = 0, rows_kept = 0;
  uint64_t snapshots = 0, snapshot_bytes = 0;  // groups that they share are counted once
  uint64_t prefixes = 0, prefix_bytes = 0;     // likewise
  uint64_t prefix_chunks = 0, prefix_metadata_bytes = 0;
  uint64_t frozen_bytes = 0;       // of extents that were taken over
  uint64_t handover_prefixes = 0;  // that are written down for the next process
  uint64_t prefix_leases = 0;      // that its sessions have taken
  std::vector<DeviceReport> devices;
  TenantCounters counters;
};

// How much of a prompt was there when its sequence was opened.
struct PrefixLookup {
  uint64_t sequence_id = 0;
  std::string model, retention, label;
  std::string form;        // retention of what it goes on from; "": nothing was there
  bool is_public = false;  // that is of a public tenant
  uint64_t rows = 0;       // that were asked with
  uint64_t rows_hit = 0;
  PrefixExplanation why;
  Instant at;
  std::string form_condensed_from = {};  // of `form`
};

struct PrefixReport {
  std::string tenant, model, retention, label, place;
  uint64_t entry = 0, rows = 0, first_rows = 0, held_bytes = 0, hits = 0;
  Instant made_at;
  std::string condensed_from = {};
  uint64_t leases = 0;  // that hold it, or a beginning of it
};

// The hit-rate curve of a tenant.
struct DemandReport {
  std::string tenant;
  PrefixDemandReport demand;
};

// What one tenant has in one tier.
struct TierReport {
  std::string tier, tenant;
  uint64_t prefixes = 0;
  uint64_t stored_bytes = 0;  // each value once
  uint64_t limit_bytes = 0;
  PrefixStoreCounters counters;
};

// A prefix that lies in a tier, as its manifest says.
struct StoredPrefix {
  struct Run {
    std::array<uint8_t, 16> digest{};
    uint32_t group_slots = 0;
    uint32_t rows = 0;
    uint64_t bytes = 0;
    // In memory: the id of its extent (never 0), the extent's size, and where the group lies in it.
    uint64_t extent = 0, extent_bytes = 0, offset = 0;
  };
  std::optional<SnapshotId> saved;  // it is no prefix but a saved sequence, with a state
  SnapshotFacts facts;  // of a prefix with a chain; where every row stays, whole chunks long
  std::vector<TokenId> tokens;  // of its rows, where every one stays as written
  std::string state;            // SaveSnapshot(), where not; its groups are the runs of the lanes
  std::vector<std::vector<Run>> lanes;
  std::array<uint8_t, 16> manifest_digest{};
  uint64_t manifest_bytes = 0;
};

// What a process before has left in memory.
struct Adoption {
  struct Prefix {
    ChainKey tenant;  // TenantKey()
    StoredPrefix prefix;
    uint64_t record = 0;  // its number; never 0
  };
  std::vector<Prefix> prefixes;                         // the oldest first
  std::map<uint64_t, std::unique_ptr<Extent>> extents;  // frozen, by id
};
struct AdoptionCounts {
  uint64_t prefixes = 0, dropped = 0;  // `dropped`: that do not fit what is there, or each other
  uint64_t bytes = 0;                  // of extents that are named by those
};

// How far what can go down has gone down.
struct DrainState {
  uint64_t pending = 0;      // prefixes that are about to be written
  uint64_t stored = 0;       // that every tier has
  uint64_t not_stored = 0;   // that some tier lacks
  uint64_t memory_only = 0;  // in forms that cannot go down
};

struct SnapshotReport {
  std::string tenant, model, retention, label;
  uint64_t rows = 0;
  uint64_t held_bytes = 0;  // of all that it names, what others name as well included
  Instant made_at;
};

struct InspectedRow {
  RowReport row;
  std::string text;
};

struct Inspection {
  SequenceReport sequence;
  uint32_t kv_heads = 0;  // of the layer
  std::vector<InspectedRow> rows;
  std::vector<InspectedRow> prompt;  // selection policies: what was chosen from
  uint64_t prompt_rows = 0;          // of it in all
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_KV_CORE_TYPES_H_
