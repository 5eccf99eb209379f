// KvCore: the verbs. The only writer of cache state; knows no network, no threads, no clock.
//
// Not thread-safe: a caller has the whole of the server's lock, but for TenantVerbs, which have a
// tenant's share of it. Copies run outside: TakeJob() gives work, FinishJob() takes it back.
#ifndef KVASIR_DAEMON_CORE_KV_CORE_H_
#define KVASIR_DAEMON_CORE_KV_CORE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "daemon/core/condensing.h"
#include "daemon/core/handover_job.h"
#include "daemon/core/job_queue.h"
#include "daemon/core/kv_core_types.h"
#include "daemon/core/lending.h"
#include "daemon/core/offloads.h"
#include "daemon/core/prefix_lease.h"
#include "daemon/core/sequence_place.h"
#include "daemon/core/tenant_rules.h"
#include "daemon/core/tier_job.h"

namespace kvasir::core {

class KvCore {
 public:
  // `pool` must outlive it.
  KvCore(CoreConfig config, HostPool& pool);
  ~KvCore();
  KvCore(const KvCore&) = delete;
  KvCore& operator=(const KvCore&) = delete;

  // The tenant of a peer, by TenantRules. Errors: kPermissionDenied naming uid, gid and cgroup.
  absl::StatusOr<Tenant*> TenantOf(const Peer& peer) const;

  // Starts a session on segments that the caller has made and zeroed; fills the D header.
  // Errors: kPermissionDenied, kResourceExhausted (limits.sessions_max).
  absl::StatusOr<Session*> OpenSession(const Peer& peer, const SessionToken& token,
                                       uint64_t boot_epoch, SessionMemory memory,
                                       ExtentSender& sender);
  // Everything unsealed goes back. The segments may be unmapped when IsGone().
  void EndSession(uint32_t session_id);
  // The session broke the protocol in a way that its caller has seen: counted, logged, ended.
  void EndForViolation(uint32_t session_id, const absl::Status& what);
  // No job of the session is out any more.
  bool IsGone(uint32_t session_id) const { return !sessions_.contains(session_id); }
  // EndSession() was called, here or because of a violation.
  bool HasEnded(uint32_t session_id) const;

  absl::StatusOr<Session*> FindSession(const SessionToken& token);  // or kUnauthenticated
  // Its rows will lie in the memory of the device `pool`; "": in host memory. Errors: kNotFound.
  absl::StatusOr<ModelHandle> RegisterModel(Session& session, ModelDescription description,
                                            const std::string& pool = "");
  // Reads the client's pattern of `seed` in the first half of the probe group's slots, writes
  // `answer_seed`'s into the second half. Errors: kFailedPrecondition naming the first wrong byte.
  absl::Status ProbeLayout(Session& session, uint32_t model_id, uint64_t seed,
                           uint64_t answer_seed);
  absl::Status PutTokenTexts(Session& session, uint32_t model_id, TokenId first,
                             const std::vector<std::string>& texts);

  // With a snapshot: nobody may be told of the sequence while its job is out (OpenedSequence()).
  // Errors: kNotFound for a snapshot that is unknown or another tenant's, kFailedPrecondition where
  // model or retention are not the snapshot's, else those of Sequence::Open() and of the spec.
  // With a lease likewise, and kFailedPrecondition where the prompt does not lead to its rows.
  // Null: a prefix is on its way up from a tier, and the caller asks again after some progress.
  absl::StatusOr<Sequence*> OpenSequence(Session& session, const OpenRequest& request);
  // The sequence with this id, or null: the session has ended, or somebody has closed it.
  Sequence* OpenedSequence(const Session& session, uint64_t sequence_id);
  // Nobody waits for it any more: closes it as soon as no job is out. 0: it was not opened yet.
  void GiveUpOpening(uint64_t sequence_id, PrefixLoading* loading = nullptr);
  // Errors inside the answer; a violation ends the session (the answer says kPermissionDenied).
  SyncAnswer Sync(Session& session, const SyncNeed& need);
  TruncateAnswer Truncate(Session& session, uint32_t slot, uint32_t uid, uint64_t rows);
  // `asked` is the caller's: false at its first call.
  SelectAnswer SelectRows(Session& session, uint32_t slot, uint32_t uid, bool* asked);
  RetrieveAnswer Retrieve(Session& session, uint32_t slot, uint32_t uid, uint32_t layer,
                          uint64_t mass_blocks, bool* asked);
  // Saves the sequence at its last row as a snapshot of the tenant. `id` is random. Errors:
  // kFailedPrecondition (such a sequence cannot be saved), kResourceExhausted (memory, or
  // tenant.snapshots_max).
  SaveAnswer SaveSequence(Session& session, uint32_t slot, uint32_t uid, const SnapshotId& id,
                          Instant now, bool* asked);
  // Errors: kNotFound for a model that is unknown, kInvalidArgument for a salt that is too long.
  absl::StatusOr<PrefixScopes> ScopesOf(Session& session, uint32_t model_id,
                                        const std::string& salt) const;
  // Every form of the prefix that is cached, the longest first, then the best, then what is
  // nearest: the model's memory, other memory, tiers. No side effect. Errors: kNotFound.
  absl::StatusOr<std::vector<PrefixMatchOf>> MatchPrefix(Session& session, uint32_t model_id,
                                                         const PrefixKeys& keys) const;
  // The longest form of the prefix begins to come to the model's memory. Errors: kNotFound.
  absl::Status PrefetchPrefix(Session& session, uint32_t model_id, const PrefixKeys& keys);
  // Offers the rows so far to the tenant's later sequences. Errors: kFailedPrecondition (the
  // sequence has no prefix, fewer rows than a chunk, or SaveSequence()'s), kResourceExhausted.
  SaveAnswer PublishPrefix(Session& session, uint32_t slot, uint32_t uid, bool* asked);
  // Scopes for the members of a lease: those of the first one, then those of the next, equally many
  // of each. Errors: kNotFound naming the member of whose model no session of the tenant is,
  // kInvalidArgument for their number, for two of one model, for a salt that is too long.
  absl::StatusOr<PrefixScopes> LeaseScopesOf(const Session& session,
                                             const std::vector<LeaseMember>& members,
                                             const std::string& salt) const;
  // Leases the longest rows from which every member can go on. Nothing: prefixes are on their way
  // up from tiers, and the caller asks again after some progress. REQUIRES: LeaseScopesOf() took
  // the members. Errors: kInvalidArgument (ttl_ms, a retention), kFailedPrecondition (a retention
  // that the member does not read), kNotFound (a model has gone), kResourceExhausted
  // (limits.leases_per_session_max).
  absl::StatusOr<std::optional<LeaseAnswer>> LeasePrefix(Session& session,
                                                         const LeaseRequest& request);
  // Errors: kNotFound for one that is unknown, over or another tenant's, kPermissionDenied for one
  // that another session has taken.
  absl::Status ReleaseLease(const Session& session, const PrefixLeaseId& id);
  // Ends those whose time is over; when the next one's is, if there is one. Called at that time,
  // and whenever a lease was taken.
  std::optional<Instant> EndExpiredLeases() { return leases_.EndExpired(now_); }
  // Errors: kNotFound (unknown, or another tenant's).
  absl::Status DropSnapshot(Session& session, const SnapshotId& id);
  // Errors: kInvalidArgument naming field and bound. An age of 0: as it was.
  absl::Status SetHints(Session& session, uint32_t slot, uint32_t uid, const SequenceHints& hints);
  // Returns false while a copy is under way (ask again).
  absl::StatusOr<bool> CloseSequence(Session& session, uint32_t slot, uint32_t uid);

  std::unique_ptr<SequenceJob> TakeJob() { return jobs_.Take(); }  // null: there is none
  // A job of which a part is left: others have their turn. False: nobody waits for it any more, so
  // that it is forgotten; its session may end here.
  bool PutBackJob(std::unique_ptr<SequenceJob> job);
  // The copies are made: publishes what waited for them. Takes the job with it, since the groups
  // that it names belong to the core's books, and the session may end here.
  void FinishJob(std::unique_ptr<SequenceJob> job);
  void ContinueAfterJob(uint64_t sequence_id);  // where TenantVerbs have finished it in part
  bool HasWork() const { return !jobs_.empty(); }
  JobQueue& jobs() { return jobs_; }  // may be used without the lock

  // Work for a thread that serves one lane of a tier, or null. What is asked for first, then what
  // may be forgotten, then what should go down: tenants in turn, a prefix each.
  std::unique_ptr<TierJob> TakeTierJob(size_t tier, TierLane lane);
  void FinishTierJob(std::unique_ptr<TierJob> job);
  // Likewise for a thread of a device (offloads.h).
  std::unique_ptr<OffloadJob> TakeOffloadJob(const DeviceMemory& device,
                                             device::CopyDirection direction);
  void FinishOffloadJob(std::unique_ptr<OffloadJob> job);
  // There may be work for tiers or devices that was not there before; asked once.
  bool TakeTierHint() { return std::exchange(tier_hint_, false); }
  // Takes over what a process before has left in memory. Its prefixes are found at once, and used
  // once their bytes are verified. Called before anything else.
  AdoptionCounts Adopt(Adoption adoption);
  // Work on what outlives the process, for one thread: what is asked for first, then what is to be
  // written down or struck out, then groups that leave frozen extents. Null: there is none.
  std::unique_ptr<HandoverJob> TakeHandoverJob();
  void FinishHandoverJob(std::unique_ptr<HandoverJob> job);
  // Adds a prefix or saved sequence that the tier has. `found_there`: at a start, and not because
  // it was just written. Errors: of the tenant's cache of that tier.
  absl::Status AddStored(size_t tier, Tenant& tenant, StoredPrefix prefix, bool found_there = true);
  // A value that a prefix of the tier's is made of.
  bool NamesStored(size_t tier, const TierKey& key) const;
  const std::string& TierName(size_t tier) const { return config_.tiers[tier].name; }
  Tenant* TenantOfKey(const TierKey& key) const;  // null: of none that is configured
  // What can go down of a tenant, or of all (""), is to be written. Errors: kNotFound,
  // kFailedPrecondition (no tier).
  absl::Status StartDrain(const std::string& tenant);
  DrainState DrainStateOf(const std::string& tenant) const;
  std::vector<TierReport> TierReports() const;  // by tier, then by tenant

  // Gives up cached prefixes of a tenant, or all (""), that nobody uses; how many. kNotFound.
  absl::StatusOr<uint64_t> DropPrefixes(const std::string& tenant);

  // What the eviction policy of a tenant has learned; "": nothing, or nobody has this name.
  std::string SaveLearned(const std::string& tenant) const;
  // Errors: kNotFound, eviction_policy.h's; nothing has changed then.
  absl::Status RestoreLearned(const std::string& tenant, std::string_view bytes);
  // Gives up prefixes and snapshots that nobody uses, of the tenant that is furthest above its fair
  // share first, until tenants are charged at most `charged_max` in all, and nothing that would
  // free no extent. Each call does a part; true: call again.
  bool GiveUpCached(uint64_t charged_max);

  // The time, for what is learned and for leases. Set before other verbs; never goes back.
  void set_now(Instant now) { now_ = now; }
  const PrefixEvents& prefix_events() const { return prefix_events_; }
  TraceRecorder& traces() { return traces_; }

  // Destroys extents that nobody holds any more; true if some are still held: call it again then.
  bool Settle();
  // A step of taking lent memory back. True while somebody wants it: call again, wake who waits.
  bool TakeBack();
  // From now on, all or none. Errors: kNotFound, kInvalidArgument naming tenant, field and bound.
  absl::Status SetBudgets(const std::map<std::string, Budget>& budgets);
  // Is called where TakeBack() has something to do. Set once, before threads start.
  void set_memory_wanted(std::function<void()> wake) { lending_.set_wake(std::move(wake)); }

  std::vector<TenantReport> TenantReports() const;
  std::vector<SequenceReport> SequenceReports() const;
  std::vector<SnapshotReport> SnapshotReports() const;  // by tenant, the oldest first
  std::vector<PrefixReport> PrefixReports() const;      // by tenant, the oldest first
  std::vector<DemandReport> DemandReports() const;
  // The last ones of a tenant, the oldest first. Errors: kNotFound.
  absl::StatusOr<std::vector<PrefixLookup>> PrefixLookups(const std::string& tenant) const;
  // `tenant`: the only one whose sequences the caller may know of; null: all.
  // Errors: kNotFound, kInvalidArgument for a layer out of range.
  absl::StatusOr<Inspection> Inspect(const std::string* tenant, uint64_t sequence_id,
                                     uint32_t layer, uint64_t first_row, uint32_t max_rows) const;
  void CountRejected(Tenant& tenant) { ++tenant.counters.rejected_calls; }
  uint32_t session_count() const { return static_cast<uint32_t>(sessions_.size()); }

  // held = what allocators hold, charged = extents owned, and the pool adds up.
  absl::Status CheckConservation() const;

 private:
  friend class TenantVerbs;
  static absl::StatusOr<Sequence*> FindSequence(Session& session, uint32_t slot, uint32_t uid);
  void TakeBackFrom(Tenant& tenant, uint64_t bytes);
  void AskBack(Tenant& tenant, uint64_t bytes);
  bool EndSequenceOf(Tenant& tenant, uint64_t sequence_id);
  void EndLatestSession(Tenant& tenant);
  // Those with rows in this memory, by id, the first to be suspended first.
  std::vector<uint64_t> SuspensionOrderOf(const Tenant& tenant, const DeviceMemory* device) const;
  // Tells the boards of those that should be, as many as have so many bytes, or that none should.
  void AskSuspensions(Tenant& tenant, uint64_t bytes, const DeviceMemory* device);
  void WithdrawSuspensions(Tenant& tenant);
  static void SetSuspendWanted(SequencePlace& place, bool wanted);
  Instant RequestedAt(const SequenceHints& said) const;
  uint64_t AgeMsOf(const SequencePlace& place) const;
  void ForgetJobOf(Sequence& sequence);
  void Violation(Session& session, const absl::Status& what);
  // Sequence::Look(). Errors: kPermissionDenied for a violation, which ends the session.
  absl::Status Look(Session& session, Sequence& sequence);
  // The sequence after Look(); null while a job is out. Errors: both calls'.
  absl::StatusOr<Sequence*> LookAtIdle(Session& session, uint32_t slot, uint32_t uid);
  // Lanes of what the request asks for, or of the tenant's default. Errors: of the spec.
  absl::StatusOr<PolicyLanes> LanesFor(const Tenant& tenant, const Model& model,
                                       const std::shared_ptr<const ModelProfile>& profile,
                                       const OpenRequest& request) const;
  // Those that what was written down with these facts was made with.
  absl::StatusOr<PolicyLanes> LanesOf(const Tenant& tenant, const Model& model,
                                      const std::shared_ptr<const ModelProfile>& profile,
                                      const SnapshotFacts& facts) const;
  // Where a session of `own` may find prefixes of the model. Errors: kInvalidArgument (the salt).
  absl::Status AddScopes(Tenant& own, const Model& model, const std::string& salt,
                         PrefixScopes* scopes) const;
  // The snapshot that the request asks for, which fits its model; null: it asks for none, or waits
  // for it to come up from a tier.
  absl::StatusOr<std::shared_ptr<const Snapshot>> SnapshotFor(Session& session, const Model& model,
                                                              const OpenRequest& request,
                                                              bool* awaits_load);
  // Whether a snapshot that lies in a tier is on its way up. Errors: why it does not come.
  absl::StatusOr<bool> AwaitsSaved(Tenant& tenant, const Model& model, const SnapshotId& id,
                                   const Snapshot& stored, PrefixLoading* loading);
  absl::StatusOr<uint64_t> LoadSaved(Tenant& tenant, const Model& model, const SnapshotId& id,
                                     const Snapshot& stored);
  void FinishLoadOfSaved(TierJob& job);
  // Where snapshots go down to: the first tier that is this host's alone; nothing: to none.
  std::optional<size_t> TierOfSaved() const;
  bool AskForStoreOfSaved(size_t tier, Tenant& tenant);
  // Errors: kFailedPrecondition or kResourceExhausted with the reason why a sequence of the session
  // cannot go on from it.
  absl::Status CheckAttachable(const Session& session, const Model& model, const Snapshot& snapshot,
                               bool reads_records) const;
  static absl::Status CheckFits(const Session& session, const Snapshot& snapshot,
                                bool reads_records);
  class Moves;  // between devices and host memory (kv_core_moves.h)
  std::vector<PrefixMatchOf> MatchForms(const Session& session, const Model& model,
                                        const PrefixKeys& keys, bool reads_records,
                                        bool with_tiers) const;
  // What the request's prefix leads to, in `form` or in another that is good enough.
  std::optional<PrefixMatchOf> FindPrefix(const Session& session, const Model& model,
                                          const OpenRequest& request, const ChainKey& form) const;
  // Likewise in the tiers, longer than `rows_above`.
  std::optional<PrefixMatchOf> FindStored(const Session& session, const Model& model,
                                          const OpenRequest& request, const ChainKey& form,
                                          uint64_t rows_above) const;
  // The caller waits for what tiers or other memory have beyond `rows_there`.
  bool AwaitsLoad(const Session& session, const Model& model, const OpenRequest& request,
                  const ChainKey& form, uint64_t rows_there);
  // Begins to load what was found, or joins a load of it; 0: it is not worth it, or has no room.
  uint64_t LoadPrefix(const Model& model, const PrefixMatchOf& match,
                      std::span<const TokenId> tokens, uint64_t rows_there);
  // Reading so many bytes is faster than computing the rows, by what was measured and declared.
  bool IsWorthLoading(size_t tier, const Model& model, uint64_t bytes, uint64_t rows) const;
  // The snapshot that a stored one will be, in new groups that wait to be filled (`items`).
  absl::StatusOr<std::shared_ptr<const Snapshot>> MakeLoadable(
      const Model& model, Tenant& tenant, const Snapshot& stored, std::span<const TokenId> tokens,
      std::vector<TierJob::Item>* items) const;
  absl::StatusOr<std::shared_ptr<const Snapshot>> MakeLoadableForm(
      const Model& model, Tenant& tenant, const Snapshot& stored,
      std::vector<TierJob::Item>* items) const;
  class Adopter;
  // Begins to verify an adopted prefix: a load, of this id.
  uint64_t VerifyPrefix(size_t tier, Tenant& tenant, const PrefixCache::Entry& entry);
  std::unique_ptr<HandoverJob> TakeVerification();
  std::unique_ptr<HandoverJob> TakeNote();
  std::unique_ptr<HandoverJob> TakeRehoming();
  std::unique_ptr<HandoverJob> RehomeOf(Tenant& tenant, const Extent& extent,
                                        GroupAllocator& allocator);
  void FinishVerification(HandoverJob& job);
  void FinishRehoming(HandoverJob& job);
  // The model of this fingerprint that a session of the tenant has, the asking one first; or null.
  const Model* ModelOfTenant(const Session& asking,
                             const std::array<uint8_t, 16>& fingerprint) const;
  // Where the members of a lease may find the prompt. Errors: of their retentions.
  struct LeaseGroup;
  absl::StatusOr<LeaseGroup> GroupOf(const Session& session, const LeaseRequest& request) const;
  // What each member goes on from at the longest row that all have; empty: there is none.
  std::vector<PrefixMatchOf> CommonOf(const Session& session, const LeaseGroup& group,
                                      const PrefixKeys& keys, bool with_tiers) const;
  // The caller waits for what the tiers have beyond `rows_there`, which all members have in memory.
  bool AwaitsLoads(const Session& session, const LeaseRequest& request, const LeaseGroup& group,
                   uint64_t rows_there);
  // Null: unknown to sessions of the tenant, or over.
  const PrefixLease* LeaseOf(const Session& session, const PrefixLeaseId& id) const;
  // What the request's lease has for the model; nothing: it asks for none. Errors: kNotFound
  // (unknown, over, another tenant's), kFailedPrecondition (model or tokens are not the lease's).
  absl::StatusOr<std::optional<LeasedStart>> LeasedFor(const Session& session, const Model& model,
                                                       const OpenRequest& request) const;
  // What a sequence that shares rows goes on from. Errors: kFailedPrecondition where the lease was
  // taken for another form.
  absl::StatusOr<PrefixStart> StartOf(const Session& session, const Model& model,
                                      const OpenRequest& request, const PolicyLanes& lanes,
                                      const std::optional<LeasedStart>& leased);
  uint64_t StoredBytes(size_t tier) const;  // of all tenants
  // Evicts what lies in the tier, of who has most above its share first, until `asking` has room.
  bool MakeTierRoom(size_t tier, const Tenant& asking, uint64_t bytes);
  bool AskForStoreOf(size_t tier, Tenant& tenant);
  void AskForStore(size_t tier, Tenant& tenant, const PrefixCache::Entry& entry);
  // Puts a job that writes it in the tier's queue; null where there is no room for it.
  TierJob* QueueStore(size_t tier, Tenant& tenant, std::shared_ptr<const Snapshot> snapshot);
  // Whether the tenant's kept rows are to become fewer now; the tenant remembers it.
  bool UpdatePressed(Tenant& tenant);
  void DropBelowLowWatermark();
  void FinishStore(TierJob& job);
  void FinishLoad(TierJob& job);
  // The sequence, just opened, has the chain of its own tenant and uses what was found.
  void SharePrefix(Sequence& sequence, const OpenRequest& request, const std::string& retention,
                   const ChainKey& form, const std::optional<PrefixMatchOf>& found);
  // Null while a job is under way. Errors: Sequence::Save()'s.
  absl::StatusOr<std::shared_ptr<const Snapshot>> SealAndSave(Sequence& sequence, bool* asked);
  void EraseSequence(Session& session, uint32_t slot);
  void CollectJob(Sequence& sequence);
  // The profile of the model's weights; null: there is none.
  absl::StatusOr<std::shared_ptr<const ModelProfile>> ProfileOf(const Model& model) const;
  void DestroyIfIdle(uint32_t session_id);
  void AddDevices(Tenant& tenant, const PrefixCache::Options& prefixes);
  // kv_core_degrade.cc: between the watermarks, of a tenant with a ladder; one at a time.
  void Degrade(Tenant& tenant);
  // What a tier should have is about to be written there.
  bool WritesFirst(const Tenant& tenant) const;
  std::optional<CondensingWork> WorkOn(Tenant& tenant, const PrefixCache::Entry& entry,
                                       uint64_t rows_left) const;
  // From the work's rung on, until one holds; else the entry loses its end after all.
  void StartCondensing(CondensingWork work);
  // Nothing where the form is there already. Errors: of no use on this rung.
  absl::StatusOr<std::unique_ptr<Condensing>> OpenCondensing(const CondensingWork& work);
  // Goes on until a job is out or it is done. Errors: it has failed, and is still there.
  absl::Status RunCondensing(Condensing& condensing);
  absl::Status FinishCondensing(const Condensing& condensing);
  void DropCondensing(Condensing& condensing);
  void FinishCondensingJob(std::unique_ptr<SequenceJob> job);
  void ContinueCondensing(Condensing& condensing);
  bool PutBackCondensingJob(std::unique_ptr<SequenceJob> job);
  bool EndCondensing(Tenant& tenant, bool always);
  Condensing* CondensingOf(const Tenant& tenant) const;
  // Bytes of all groups of the tenant's, of host memory or of a device, that are named, each once.
  uint64_t NamedBytes(const Tenant& tenant, const TenantDevice* device) const;
  SequenceReport ReportOf(const Session& session, const Sequence& sequence) const;

  const CoreConfig config_;
  HostPool& pool_;
  PrefixEvents prefix_events_{4096};
  Instant now_;  // set_now()
  TraceRecorder traces_{now_};
  Lending lending_;
  std::deque<DeviceShares> device_shares_;  // by pool
  std::vector<std::unique_ptr<Tenant>> tenants_;
  const TenantRules tenant_rules_;  // by place in tenants_
  std::map<uint32_t, std::unique_ptr<Session>> sessions_;
  std::map<SessionToken, Session*> by_token_;
  std::map<uint64_t, SequencePlace> sequence_places_;            // by sequence id
  std::map<uint64_t, std::unique_ptr<Condensing>> condensings_;  // by id of its sequence
  JobQueue jobs_;
  std::map<const Tenant*, std::deque<PrefixLookup>> prefix_lookups_;  // the newest last
  std::deque<TierQueue> tiers_;                                       // as in the configuration
  std::map<uint64_t, TierLoad> loads_;                          // that are not finished, by job
  std::map<uint64_t, std::shared_ptr<const Snapshot>> moving_;  // of jobs, for the books
  std::deque<std::unique_ptr<HandoverJob>> verifications_;      // the older ones first
  std::vector<std::shared_ptr<KeptGroup>> handing_over_;        // of the job that is out
  size_t note_turn_ = 0;                                        // of the tenants
  PrefixLeases leases_;                                         // end with their sessions
  Offloads offloads_{{config_.write_down_high_percent, config_.write_down_low_percent}, now_};
  bool tier_hint_ = false;
  uint64_t next_tier_job_id_ = 1, next_sequence_id_ = 1;
  uint32_t next_session_id_ = 1;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_KV_CORE_H_
