// KvCore::Moves: what asks for rows that lie in other memory than the asking model's. It finds
// them, has them moved (offloads.h), and says whether its caller waits. A view of the core, made
// where it is used; not thread-safe.
#ifndef KVASIR_DAEMON_CORE_KV_CORE_MOVES_H_
#define KVASIR_DAEMON_CORE_KV_CORE_MOVES_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/core/kv_core.h"

namespace kvasir::core {

class KvCore::Moves {
 public:
  explicit Moves(KvCore& core) : core_(core) {}

  // Errors: those of CheckAttachable() but for where the rows lie; kFailedPrecondition where they
  // could not be used in the model's memory.
  static absl::Status Check(const KvCore& core, const Session& session, const Model& model,
                            const Snapshot& snapshot, bool reads_records);

  // The caches of the tenant's that are not of the model's memory and may be moved there: rows move
  // within the own memory of the session's tenant alone.
  static std::vector<const PrefixCache*> Elsewhere(const Session& session, const Model& model,
                                                   const Tenant& tenant);

  // The longest of the session's tenant that lies in other memory than the model's and has more
  // than `rows_above`. No side effect.
  static std::optional<PrefixMatchOf> Find(const KvCore& core, const Session& session,
                                           const Model& model, const PrefixKeys& keys,
                                           const ChainKey& form, bool reads_records,
                                           uint64_t rows_above);

  // The caller waits for what other memory has beyond `rows_there`; begun once a call.
  bool Awaits(const Session& session, const Model& model, const OpenRequest& request,
              const ChainKey& form, uint64_t rows_there);
  // Begins to move what was found, or joins a move of it; 0: there is no room.
  uint64_t Begin(const Model& model, const PrefixMatchOf& match, bool is_awaited);

  // True while a saved sequence is on its way to the model's memory. Errors: why it does not come.
  absl::StatusOr<bool> AwaitsSaved(Tenant& tenant, const Model& model, const SnapshotId& id,
                                   std::shared_ptr<const Snapshot> snapshot,
                                   PrefixLoading* loading);

 private:
  KvCore& core_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_KV_CORE_MOVES_H_
