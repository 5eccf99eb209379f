// Condensing: a cached prefix is brought into a retention that holds less of it. The daemon is the
// engine of a sequence whose forward pass is a copy.
//
// The sequence lies in segments that nobody else maps. Rows of the source are written into its
// recent blocks, a few blocks ahead; its desk says how far; tables are taken as engines take them.
// So policies and encodings make of the rows what they make of an engine's, by the same code, and
// the end is saved as an engine's is.
//
// Not thread-safe: whoever calls holds the core's lock. Jobs run outside it, at most one at a time.
#ifndef KVASIR_DAEMON_CORE_CONDENSING_H_
#define KVASIR_DAEMON_CORE_CONDENSING_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <set>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "daemon/core/row_source.h"
#include "daemon/core/session.h"

namespace kvasir::core {

// What is to be made smaller, and what becomes of it where that fails.
struct CondensingWork {
  Tenant* tenant = nullptr;  // whose cache it is; lives as long as the core
  uint64_t entry = 0;        // of the cache
  uint64_t hits = 0;         // of the entry when it was chosen
  std::shared_ptr<const Snapshot>
      cached;                 // shared with the entry: another one there, and it has changed
  uint64_t rows_left = 0;     // of the entry, where it loses its end instead
  uint64_t rows_staying = 0;  // first rows that stay as they are
  uint64_t freed_bytes = 0;   // once the others go; what is made takes less, or is not worth it
  size_t rung = 0;            // of the tenant's ladder
};

// Bytes of the tenant's that nobody but the snapshot's holder names, without those of its first
// `rows_staying` rows. Cost: O(its groups).
uint64_t BytesAlone(const Tenant& tenant, const Snapshot& snapshot, uint64_t rows_staying);

class Condensing final : public ExtentSender {
 public:
  // A session for the model of the work's prefix, and its rows. `limits`: an engine's. Errors:
  // kFailedPrecondition where it has not all of its rows.
  static absl::StatusOr<std::unique_ptr<Condensing>> Create(CondensingWork work,
                                                            SessionLimits limits,
                                                            uint64_t first_extent_bytes,
                                                            uint64_t extent_bytes);
  // REQUIRES: no job is out.
  ~Condensing() override;

  // Whether the lanes make less of the rows of source(), and can. Errors: kFailedPrecondition,
  // kInvalidArgument.
  absl::Status CheckBelow(const PolicyLanes& lanes) const;
  // Opens the sequence, in the form `form`. REQUIRES: CheckBelow(lanes) is OK. Errors: those of
  // Sequence::Open().
  absl::Status Open(uint64_t sequence_id, const ChainKey& form, PolicyLanes lanes,
                    std::shared_ptr<const ModelProfile> profile);

  // Goes on as far as that is possible. The next job, or null where there is a result(). Errors:
  // any; it is of no use any more then.
  absl::StatusOr<std::unique_ptr<SequenceJob>> Advance();
  // The job is done; it is to be destroyed before the next call.
  void Finish(SequenceJob& job);
  // The job that was returned will not be run.
  void CancelJob();
  // It ends when the job that is out comes back.
  void Abandon() { abandoned_ = true; }
  bool abandoned() const { return abandoned_; }

  const CondensingWork& work() const { return work_; }
  Tenant& tenant() const { return *work_.tenant; }
  const Snapshot& source() const { return source_->snapshot(); }
  const Session& session() const { return *session_; }
  const Model& model() const { return model_; }
  const Sequence* sequence() const { return sequence_.get(); }  // null before Open()
  const std::shared_ptr<const Snapshot>& result() const { return result_; }
  // For the books, as Sequence's.
  void AddHoldings(GroupSet* groups, std::set<const Snapshot*>* snapshots) const;

  absl::Status SendExtent(const shm::ExtentNotice& notice, const Extent& extent) override;

 private:
  struct Free {
    void operator()(std::byte* data) const { ::free(data); }
  };
  using Segment = std::unique_ptr<std::byte, Free>;
  // The first `cleared` bytes are zero.
  static Segment MakeSegment(uint64_t bytes, uint64_t cleared);

  Condensing(CondensingWork work, Model model, std::shared_ptr<const RowSource> source,
             const SessionLimits& limits, uint64_t first_extent_bytes, uint64_t extent_bytes);

  shm::SeqBoard& board() const { return *session_->Board(0); }
  shm::SeqDesk& desk() const;
  const shm::VersionDesc& table() const { return board().v[adopted_ & 1]; }
  // As an engine does: takes the newest table once it has come to its first row, and says so.
  void Adopt();
  // By what is granted and the table in use.
  uint64_t Writable() const;
  std::byte* BlockOf(size_t lane, uint64_t row) const;
  std::unique_ptr<SequenceJob> MakeWriting(uint64_t rows_max);
  // Errors: kFailedPrecondition where what is made holds as much already as would be freed.
  absl::Status CheckSmaller() const;

  const CondensingWork work_;
  const Model model_;
  const std::shared_ptr<const RowSource> source_;  // shared with jobs
  Segment d_, e_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Sequence> sequence_;  // refers to the session
  std::vector<std::byte*> extents_;     // by slot
  uint64_t rows_ = 0;                   // written
  uint64_t adopted_ = 1;
  bool asked_to_save_ = false;
  bool abandoned_ = false;
  std::shared_ptr<const Snapshot> result_;  // handed to the cache
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_CONDENSING_H_
