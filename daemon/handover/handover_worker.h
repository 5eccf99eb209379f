// HandoverWorker: the thread that keeps the pool's cached prefixes ready for the process that comes
// after this one, and takes in what the one before has left.
//
// It digests the groups of a cached prefix, has the service manager keep their extents, and writes
// a record; strikes records out; verifies what was taken over; moves groups out of frozen extents.
// It sleeps while there is nothing to do.
#ifndef KVASIR_DAEMON_HANDOVER_HANDOVER_WORKER_H_
#define KVASIR_DAEMON_HANDOVER_HANDOVER_WORKER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "daemon/handover/fd_store.h"
#include "daemon/handover/handover_index.h"
#include "daemon/handover/take_over.h"
#include "daemon/shared_core.h"

namespace kvasir {

// Thread-safe. Joins its thread when destroyed.
class HandoverWorker {
 public:
  struct Options {
    uint64_t index_bytes = 0;  // of a new index; memory is taken as it is written
    ChainHasher::Secret secret{};
    bool lock = false;  // adopted extents are to be locked in memory, as far as it is allowed
  };

  // `shared` must outlive it; `taken` without its adoption, which the core has. Errors: those of a
  // new index.
  static absl::StatusOr<std::unique_ptr<HandoverWorker>> Start(SharedCore& shared, FdStore store,
                                                               TakenOver taken,
                                                               const Options& options);
  ~HandoverWorker();
  HandoverWorker(const HandoverWorker&) = delete;
  HandoverWorker& operator=(const HandoverWorker&) = delete;

  // An extent is gone: the manager is to close it. Called under any lock; takes a leaf lock.
  void Returned(uint64_t extent_id);

 private:
  HandoverWorker(SharedCore& shared, FdStore store, TakenOver taken, const Options& options);

  absl::Status MakeIndex(uint64_t epoch);
  void Loop();
  void Run(core::HandoverJob& job);
  void Verify(core::HandoverJob& job);
  void Note(core::HandoverJob& job);
  absl::Status KeepExtents(const core::HandoverJob& job);
  // Errors: kResourceExhausted where it is full even without what is struck out; the kernel's.
  absl::StatusOr<uint64_t> Append(const std::string& payload);
  // A new index with the live records of the old one.
  absl::Status Compact();
  void Strike(uint64_t record);
  void ForgetExtents(const std::vector<uint64_t>& ids);

  SharedCore& shared_;
  FdStore store_;
  const Options options_;
  std::unique_ptr<HandoverIndex> index_;  // the thread's alone, as all up to here below
  std::map<uint64_t, uint64_t> records_;  // places in the index, by number
  uint64_t next_record_ = 1;
  std::set<uint64_t> kept_;     // extents that the manager keeps
  std::set<uint64_t> touched_;  // adopted ones of which every page is mapped
  bool lock_refused_ = false;
  Mutex returned_mutex_;  // a leaf
  std::vector<uint64_t> returned_ ABSL_GUARDED_BY(returned_mutex_);
  bool stopping_ = false;  // under shared_.mutex
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_HANDOVER_HANDOVER_WORKER_H_
