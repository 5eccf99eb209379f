// TenantVerbs: what engines ask at a block border, done with one tenant's share of the core alone.
//
// Under the share of a tenant (its shard of the core's lock, daemon/shared_core.h) the calls of
// other tenants run at the same time, so that nothing is read but what changes under the whole lock
// alone, and nothing written but the tenant's own: its sessions, its sequences and their places,
// its allocators, its counters. Each verb either does all that KvCore's of the same name does, or
// stops where it would need more (it says nothing then), and the caller runs KvCore's under the
// whole lock. What is done until then is what the engine's next call would do anyway.
//
// More than its share is: memory of the pool, or that others owe, or that is made by giving up what
// is cached; the end of a session, for a violation; a sequence that shares groups with another
// tenant's, which it may be the last to free; what a sequence uses of a cache, when that ends; the
// ladder of a tenant that has one; and the time, which is not told here.
#ifndef KVASIR_DAEMON_CORE_TENANT_VERBS_H_
#define KVASIR_DAEMON_CORE_TENANT_VERBS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "daemon/core/kv_core.h"

namespace kvasir::core {

// Not thread-safe: for each share its holder.
class TenantVerbs {
 public:
  // Those of one of `shares` shares: tenants whose places are `share` modulo that. `core` must
  // outlive it.
  TenantVerbs(KvCore& core, size_t share, size_t shares)
      : core_(core), share_(share), shares_(shares) {}

  // Null: unknown, over, or of a tenant of another share.
  Session* FindSession(const SessionToken& token) const;
  // No verb of these ends a session.
  bool HasEnded(uint32_t) const { return false; }

  // As KvCore's. Nothing: to be run under the whole lock.
  std::optional<SyncAnswer> Sync(Session& session, const SyncNeed& need);
  std::optional<TruncateAnswer> Truncate(Session& session, uint32_t slot, uint32_t uid,
                                         uint64_t rows);
  std::optional<RetrieveAnswer> Retrieve(Session& session, uint32_t slot, uint32_t uid,
                                         uint32_t layer, uint64_t mass_blocks, bool* asked);
  void CountRejected(Session& session) { core_.CountRejected(session.tenant); }

  // A job of a tenant of this share, as KvCore::PutBackJob(). False: it is still the caller's, and
  // to be put back under the whole lock.
  bool PutBackJob(std::unique_ptr<SequenceJob>& job);
  enum class Finished {
    kNot,     // the job is still the caller's, and to be finished under the whole lock
    kPartly,  // the job is done; what follows needs KvCore::ContinueAfterJob()
    kEntirely
  };
  Finished FinishJob(std::unique_ptr<SequenceJob>& job);

 private:
  // Null: there is none, or it is not this tenant's alone.
  Sequence* Find(Session& session, uint32_t slot, uint32_t uid) const;
  Sequence* OwnSequenceOf(const SequenceJob& job) const;

  KvCore& core_;
  const size_t share_, shares_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TENANT_VERBS_H_
