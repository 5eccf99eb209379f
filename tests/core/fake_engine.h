// FakeEngine: a session of a KvCore without sockets or threads. Its two segments are plain buffers,
// and extents reach it as addresses; what it does with them is what an engine would do. Rows in the
// memory of a device it reads and writes by copies.
#ifndef KVASIR_TESTS_CORE_FAKE_ENGINE_H_
#define KVASIR_TESTS_CORE_FAKE_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "base/posix.h"
#include "daemon/core/kv_core.h"

namespace kvasir::core::testing {

// Seed of randomised tests: the environment's KVASIR_SEED, or `fallback`.
uint64_t TestSeed(uint64_t fallback);

// A pool without locking or stock.
std::unique_ptr<HostPool> MakeTestPool(uint64_t bytes);

// One lane for `layers` layers of 1 kv head (2 query heads) x 8 elements in f16, 16 slots a block,
// vocabulary 100, separators 1 and 2.
ModelDescription SmallModel(uint32_t layers);

class FakeEngine final : public ExtentSender {
 public:
  // One open sequence as the engine knows it.
  struct Stream {
    uint32_t slot = 0, uid = 0;
    uint64_t id = 0;
    uint64_t rows = 0;
    uint64_t adopted = 1;
    std::vector<uint32_t> ids;
    shm::GroupGeometry recent, block, small;     // of its one lane
    std::shared_ptr<const LaneRecords> records;  // of its lane; null: rows lie as written
    shm::ReportGeometry report_geometry;
    std::byte* report = nullptr;  // where it reports; null: nothing is asked for
  };

  // Opens a session. `limits` as in the core's configuration.
  FakeEngine(KvCore& core, const SessionLimits& limits, uint32_t uid, bool overrides = false);

  absl::Status SendExtent(const shm::ExtentNotice& notice, const Extent& extent) override;

  bool open() const { return !core_.HasEnded(session_id_); }
  uint32_t session_id() const { return session_id_; }
  Session& session() { return *session_; }  // REQUIRES: open()

  // Registers the model, writes the probe pattern and has it checked. Its layers are
  // SmallModel()'s.
  absl::StatusOr<uint32_t> RegisterModel(const ModelDescription& model,
                                         const std::string& pool = "");
  absl::StatusOr<uint32_t> RegisterModel(uint32_t layers) {
    return RegisterModel(SmallModel(layers));
  }
  // What is to be reported is reported from then on: `mass` for every row, and for queries.
  absl::StatusOr<Stream> Open(uint32_t model_id, const std::string& retention,
                              uint64_t prompt_rows = 0);
  // Goes on from a snapshot, of a stream whose tokens begin with `ids`. Nothing may be done with
  // the stream while Opening().
  absl::StatusOr<Stream> Resume(uint32_t model_id, const std::string& retention,
                                const SnapshotId& snapshot, const std::vector<uint32_t>& ids);
  // Opens a sequence that goes on from the longest cached prefix of these tokens.
  absl::StatusOr<Stream> Attach(OpenRequest request, const std::string& salt, PrefixRequest prefix);
  SaveAnswer Publish(const Stream& stream, bool* asked) {
    return core_.PublishPrefix(*session_, stream.slot, stream.uid, asked);
  }
  bool Opening(const Stream& stream) const {
    return core_.OpenedSequence(*session_, stream.id)->resuming();
  }
  SaveAnswer Save(const Stream& stream, const SnapshotId& id, bool* asked) {
    return core_.SaveSequence(*session_, stream.slot, stream.uid, id, Instant(), asked);
  }
  // Fills the report group with `value`.
  static void FillReports(const Stream& stream, float value);

  // Adopts a newer table if the stream has come to its first row, with `late` only where the one in
  // use has ended; then the rows that may be written now, judged from the board alone.
  uint64_t Writable(Stream& stream, bool late = false);
  // Writes the next row with this id, in every layer, and its mass. REQUIRES: Writable(stream) > 0.
  void WriteRow(Stream& stream, uint32_t id, float mass = 0.5F);
  // Overwrites the keys of a row that is in recent, in every layer.
  void SpoilKeys(const Stream& stream, uint64_t row, uint16_t bits);
  // The group of a row that is in recent.
  std::span<std::byte> GroupOf(const Stream& stream, uint64_t row) {
    return {BlockOf(stream, 0, row), stream.recent.bytes};
  }
  // Puts rows and adopted into the desk.
  void WriteDesk(const Stream& stream);
  // With `share` under the tenant's share of the core, where that is enough.
  RetrieveAnswer Retrieve(const Stream& stream, uint32_t layer, uint64_t mass_blocks, bool* asked,
                          bool share);
  SyncAnswer Sync(const Stream& stream, uint64_t granted_rows, std::optional<uint64_t> table_row);

  // Rows that the query of `row` sees in `layer` by the adopted table, ascending. Adds a test
  // failure for kept rows whose K, V, position or id is not the one written.
  std::vector<uint64_t> VisibleRows(const Stream& stream, uint64_t row, uint32_t layer);

  // What the query of `row` sees in `layer`, by row: where it stands for the key, K and V, byte by
  // byte; of a record K and V of all its rows. Equal for streams that nothing can tell apart.
  std::map<uint64_t, std::string> Seen(const Stream& stream, uint64_t row, uint32_t layer);

  // Adds a test failure where a retrieved block is not the rows [first, first + rows) of the layer.
  void ExpectBlock(const Stream& stream, uint32_t layer, const Sequence::RetrievedBlock& block,
                   uint64_t first, uint32_t rows);

  const std::byte* daemon_segment() const { return d_.get(); }
  shm::SeqBoard& board(uint32_t slot) { return boards()[slot]; }
  shm::SeqDesk& desk(uint32_t slot);
  uint64_t records_read = 0;  // by VisibleRows()
  // What is written depends on all tokens so far, as in a model with these weights.
  bool rows_by_prefix = false;
  uint32_t weights = 0;
  // K (plane 0) and V of a row, in bytes; "", or no function: what is written always.
  std::function<std::string(uint64_t row, uint32_t layer, uint32_t plane)> rows_from;
  // Called while a prefix is on its way up from a tier; empty: what lies in tiers is not asked for.
  std::function<void()> run_tiers;
  bool waits_for_tiers = true;             // false: begins to load, and opens without
  bool refuse_extents = false;             // SendExtent fails, as when the peer does not read
  std::vector<UniqueFd>* holds = nullptr;  // gets a descriptor of every extent
  uint32_t newest_generation = 0;          // of a slot

 private:
  struct Free {
    void operator()(std::byte* data) const { ::free(data); }
  };
  using Buffer = std::unique_ptr<std::byte, Free>;
  static Buffer MakeBuffer(uint64_t bytes);
  uint16_t PrefixDigest(const Stream& stream, uint32_t id) const;

  shm::SeqBoard* boards();
  const shm::VersionDesc& Table(const Stream& stream) {
    return board(stream.slot).v[stream.adopted & 1];
  }
  Stream StreamOf(const Sequence& sequence);
  // A group as it lies in host memory; of a pair a copy of both halves, as they are now.
  std::byte* GroupAt(uint32_t extent, uint64_t offset, const shm::GroupGeometry& geometry);
  // What was written to what GroupAt() gave goes to where it belongs.
  void PutGroup(uint32_t extent, uint64_t offset, const shm::GroupGeometry& geometry);
  const shm::RecentRef& RefOf(const Stream& stream, uint32_t lane, uint64_t row);
  std::byte* BlockOf(const Stream& stream, uint32_t lane, uint64_t row) {
    const shm::RecentRef& ref = RefOf(stream, lane, row);
    return GroupAt(ref.extent, ref.group_off, stream.recent);
  }
  // Adds the rows of a run of records that the query sees.
  void AddRecordRows(const Stream& stream, const shm::LaneSpan& span, const shm::RunEntry& run,
                     uint64_t query, uint32_t layer, std::vector<uint64_t>& rows);

  KvCore& core_;
  const SegmentSizes sizes_;
  const Buffer d_, e_;
  Session* session_ = nullptr;
  uint32_t session_id_ = 0;
  std::vector<std::byte*> extents_;              // by slot
  std::map<uint32_t, const DeviceRows*> pairs_;  // likewise, of those that are on a device
  std::map<std::pair<uint32_t, uint64_t>, std::vector<std::byte>> copies_;  // by extent and offset
  uint32_t layers_ = 0;
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_FAKE_ENGINE_H_
