// Engine: a session of a KvCore as an engine has it, without sockets or threads: its two segments,
// the extents that it was handed, its streams. It reads and writes as engines do, and compares all
// that it sees with what it should see by its own books.
#ifndef KVASIR_TESTS_SIM_ENGINE_H_
#define KVASIR_TESTS_SIM_ENGINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "base/posix.h"
#include "daemon/core/kv_core.h"
#include "tests/sim/extent_books.h"
#include "tests/sim/findings.h"
#include "tests/sim/retentions.h"
#include "tests/sim/row_bytes.h"

namespace kvasir::sim {

inline constexpr uint32_t kModels = 2;  // of one layer, of two layers
inline constexpr uint32_t kSlots = 16;  // of a block
inline constexpr uint32_t kVocabulary = 100;

core::ModelDescription ModelOf(uint32_t model);

// A text, as far as it is known: what rows must look like follows from it.
struct Text {
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> chains;  // NextChain() up to each token
  // The first rows may also be what the tenant that shares its prefixes has written.
  uint64_t shared_rows = 0;

  uint64_t rows() const { return tokens.size(); }
  void Add(uint32_t token) {
    chains.push_back(NextChain(chains.empty() ? 0 : chains.back(), token));
    tokens.push_back(token);
  }
  void Cut(uint64_t rows) {
    tokens.resize(rows);
    chains.resize(rows);
    shared_rows = std::min(shared_rows, rows);
  }
};

// One open sequence as the engine knows it.
struct Stream {
  struct Lane {
    std::vector<uint32_t> layers;
    shm::GroupGeometry recent, block, small;
    std::shared_ptr<const core::LaneRecords> records;  // as the core's; null: rows as written
    shm::ReportGeometry report_geometry;
    std::byte* report = nullptr;
  };

  uint32_t slot = 0, uid = 0, model = 0;
  uint64_t id = 0;
  uint64_t adopted = 1;
  Text text;
  std::vector<Lane> lanes;
  const Retention* retention = nullptr;
  std::vector<uint32_t> script;  // tokens that come next, as far as it is longer than the text
  bool opening = false;          // its first job is not known to be done
  bool shares = false;           // it may be published
  bool spoilt = false;           // it was written nonsense: nothing is expected of its rows
  bool asked = false;            // a save or publishing is under way
  bool publishing = false;       // which of the two
  core::SnapshotId saving;

  uint64_t rows() const { return text.rows(); }
};

// What a sequence is opened with, while a tier is waited for.
struct PendingOpen {
  std::vector<uint32_t> script;
  const Retention* retention = nullptr;
  uint32_t model = 0;
  std::optional<core::SnapshotId> snapshot;
  Text text;  // of the snapshot
  core::PrefixLoading loading;
  uint32_t tries = 0;
};

class Engine final : public core::ExtentSender {
 public:
  struct Place {
    uint32_t tenant = 0;  // by number; its uid is one more
    uint32_t sharing_tenant = 0;
    bool overrides = false;
  };

  // Opens a session; session_id() is 0 where that was refused.
  Engine(core::KvCore& core, const core::SessionLimits& limits, const Place& place, uint64_t token,
         ExtentBooks& books, Findings& findings);

  absl::Status SendExtent(const shm::ExtentNotice& notice, const Extent& extent) override;

  uint32_t session_id() const { return session_id_; }
  uint32_t tenant() const { return place_.tenant; }
  bool overrides() const { return place_.overrides; }
  bool open() const { return session_id_ != 0 && !core_.HasEnded(session_id_); }
  core::Session& session() { return *session_; }  // REQUIRES: open()
  const shm::DaemonHeader& header() const {
    return *reinterpret_cast<const shm::DaemonHeader*>(d_.get());
  }

  // Registers a model and has its layout probed; its id stands in model_ids then.
  absl::Status Register(uint32_t model, bool wrong_layout = false);
  // Takes the stream of a sequence that was opened in with `text` as its rows.
  Stream& Take(const core::Sequence& sequence, uint32_t model, const Retention& retention,
               Text text);
  // The daemon has ended the sequence.
  bool IsTakenBack(const Stream& stream) const;
  bool Opening(Stream& stream);

  // Adopts a newer table if the stream has come to its first row, with `late` only where the one in
  // use has ended; then the rows that may be written now, judged from the board alone.
  uint64_t Writable(Stream& stream, bool late);
  void WriteRow(Stream& stream, uint32_t token, float mass);
  void WriteDesk(const Stream& stream) { WriteDesk(stream, stream.rows(), stream.adopted); }
  void WriteDesk(const Stream& stream, uint64_t rows, uint64_t adopted);
  // Where a recent row lies in the layer; null, and a finding, where no memory of its own does.
  std::byte* RecentRow(const Stream& stream, uint64_t row, uint32_t lane);
  static void FillReports(const Stream& stream, float value);

  // Everything that the last row's query sees is what it should be.
  void CheckView(const Stream& stream);

  // A group that a board names, for checks of all of them together.
  struct NamedGroup {
    uint64_t extent = 0, offset = 0, bytes = 0;
    bool recent = false;
  };
  void AddNamed(const Stream& stream, std::vector<NamedGroup>* groups);

  shm::SeqBoard& board(uint32_t slot) { return boards()[slot]; }
  shm::SeqDesk& desk(uint32_t slot);

  std::array<uint32_t, kModels> model_ids{};  // 0: not registered
  std::vector<std::unique_ptr<Stream>> streams;
  std::optional<PendingOpen> pending;
  bool refuses_extents = false;
  bool holds = false;  // it keeps a descriptor of each extent
  bool lied = false;   // it may be ended for it
  std::vector<UniqueFd> held;

 private:
  struct Free {
    void operator()(std::byte* data) const { ::free(data); }
  };
  using Buffer = std::unique_ptr<std::byte, Free>;
  struct Given {
    uint64_t id = 0, bytes = 0;
    uint32_t generation = 0;
    bool recent = false;
    std::byte* data = nullptr;
  };

  static Buffer MakeBuffer(uint64_t bytes);
  shm::SeqBoard* boards() { return reinterpret_cast<shm::SeqBoard*>(d_.get() + sizes_.seq_off); }
  // Null, and a finding, where the engine has no such memory.
  std::byte* At(uint32_t slot, uint32_t generation, uint64_t offset, uint64_t bytes, bool recent);
  bool IsRight(const Stream& stream, uint64_t row, uint32_t layer, uint32_t plane,
               const std::byte* data) const;
  bool IsNear(const Stream& stream, uint64_t row, uint32_t layer, uint32_t plane,
              const float* data) const;
  uint64_t Writer(uint32_t tenant, uint32_t model) const { return tenant * kModels + model + 1; }
  // Adds rows that a run of the layer shows to seen_.
  void SeeRun(const Stream& stream, const shm::LaneSpan& span, const shm::RunEntry& run,
              size_t lane, size_t layer_in_lane, uint64_t query);
  void SeeRecords(const Stream& stream, const shm::LaneSpan& span, const shm::RunEntry& run,
                  const Stream::Lane& lane, size_t layer_in_lane, uint64_t query,
                  const std::byte* base);
  void CheckLayer(const Stream& stream, size_t lane, size_t layer_in_lane);

  core::KvCore& core_;
  const core::SessionLimits limits_;
  const Place place_;
  const core::SegmentSizes sizes_;
  ExtentBooks& books_;
  Findings& findings_;
  const Buffer d_, e_;
  core::Session* session_ = nullptr;
  uint32_t session_id_ = 0;
  std::vector<Given> given_;  // by slot
  std::vector<uint64_t> seen_, expected_;
  std::vector<float> keys_, values_;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_ENGINE_H_
