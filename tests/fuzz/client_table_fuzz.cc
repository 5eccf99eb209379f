// The client's reading of a session's D segment: boards, directories, tables and completions of any
// bytes are refused, or lead to views that lie inside the extents that were handed over. The input
// is a sequence of a daemon's stores and an engine's calls, on top of a table that is whole.
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "client/sequence_state.h"
#include "proto/shm/command_ring_layout.h"
#include "ring/ring_memory.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace kvasir;  // NOLINT(google-build-using-namespace): a program of one file
using fuzz::Input;
using fuzz::Require;

constexpr uint64_t kDBytes = 64 << 10, kEBytes = 32 << 10, kExtentBytes = 256 << 10;
constexpr uint64_t kBoardsOff = 4096, kArenaOff = 8192, kRingOff = 32 << 10;
constexpr uint64_t kDirOff = 8192, kSpanOff = 9216, kRunsOff = 10'240, kStickyOff = 12'288;
constexpr uint64_t kArenaEnd = 12'544;
constexpr uint32_t kSlots = 16, kDirCap = 8, kUid = 5;

UniqueFd MakeFile(uint64_t bytes) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  Require(fd && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

// One session for all inputs: its segments are written anew, its extents stay.
class World {
 public:
  World() : session_(std::make_shared<SessionState>()) {
    std::array<int, 2> sockets{};
    Require(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sockets.data()) == 0);
    session_->socket = UniqueFd(sockets[0]);
    daemon_ = UniqueFd(sockets[1]);
    session_->doorbell = MakeFile(4096);  // may be rung, and nobody hears it
    session_->d = *MappedRegion::Map(MakeFile(kDBytes), kDBytes, Access::kReadWrite);
    session_->e = *MappedRegion::Map(MakeFile(kEBytes), kEBytes, Access::kReadWrite);
    session_->deadline = std::chrono::milliseconds(0);
    session_->extents = std::make_unique<ExtentMap>(session_->socket);
    for (uint32_t slot = 0; slot < 2; ++slot) {
      const UniqueFd extent = MakeFile(kExtentBytes);
      shm::ExtentNotice notice{};
      notice.kind = static_cast<uint32_t>(shm::MessageKind::kExtent);
      notice.extent_kind =
          static_cast<uint32_t>(slot == 0 ? shm::ExtentKind::kRecent : shm::ExtentKind::kKept);
      notice.slot = slot;
      notice.generation = 1;
      notice.bytes = kExtentBytes;
      notice.extent_id = slot + 1;
      const int fd = extent.get();
      Require(SendMessage(daemon_, std::as_bytes(std::span(&notice, 1)), {&fd, 1}).ok());
      const auto base = session_->extents->At(slot, 1, 0, kExtentBytes,
                                              SystemClock().Now() + std::chrono::seconds(10));
      Require(base.ok());
      extents_[slot] = *base;
    }
  }

  std::shared_ptr<SessionState> session() { return session_; }
  std::byte* d() { return session_->d.data(); }
  shm::SeqBoard& board() { return *reinterpret_cast<shm::SeqBoard*>(d() + kBoardsOff); }
  template <typename T>
  T* At(uint64_t off) {
    return reinterpret_cast<T*>(d() + off);
  }

  // A table of two runs over 20 kept rows, and four blocks of recent rows from row 16 on.
  void Reset() {
    std::memset(d(), 0, kDBytes);
    std::memset(session_->e.data(), 0, kEBytes);
    auto& header = *At<shm::DaemonHeader>(0);
    header.session_id = 1;
    header.seq_max = 2;
    header.seq_off = kBoardsOff;
    header.e_desk_off = 4096;
    header.session_state.store(static_cast<uint32_t>(shm::SessionState::kOpen));
    shm::RingSizes sizes;
    sizes.submission_entries = sizes.completion_entries = 4;
    sizes.payload_area_bytes = sizes.answer_area_bytes = 4096;
    sizes.engine_spin_ns = 0;
    const shm::RingGeometry geometry = shm::RingGeometryFor(sizes, kRingOff, 8192, 2);
    (void)ring::DaemonRingMemory::Create(geometry, 1, d(), session_->e.data());
    session_->ring.reset();
    session_->ring_memory =
        *ring::EngineRingMemory::Open(d(), kDBytes, session_->e.data(), kEBytes);
    ring::WaitOptions wait;
    wait.spin = std::chrono::nanoseconds(0);
    wait.slice = std::chrono::milliseconds(0);
    wait.peer_is_gone = [] { return true; };
    session_->ring = std::make_unique<ring::CommandCaller>(
        *session_->ring_memory, session_->doorbell.get(), std::move(wait));
    for (uint32_t block = 0; block < kDirCap; ++block) {
      At<shm::RecentRef>(kDirOff)[block] = {0, 1, uint64_t{block} * 4096 * 2};
    }
    auto* const runs = At<shm::RunEntry>(kRunsOff);
    runs[0].extent = runs[1].extent = 1;
    runs[0].generation = runs[1].generation = 1;
    runs[0].group_slots = runs[0].rows = kSlots;
    runs[1].group_off = 16'384;
    runs[1].group_slots = runs[1].rows = 2;
    auto& span = *At<shm::LaneSpan>(kSpanOff);
    span.runs_off = kRunsOff;
    span.sticky_off = kStickyOff;
    span.runs = 2;
    span.sticky = 1;
    span.kept_rows = 18;
    span.window = 24;
    span.recent_first = 17;
    At<uint64_t>(kStickyOff)[0] = 18;
    shm::SeqBoard& open = board();
    open.published.store(1);
    open.granted.store(64);
    open.uid.store(kUid);
    open.state.store(static_cast<uint32_t>(shm::BoardState::kOpen));
    open.slots_per_block = kSlots;
    open.lanes = 1;
    open.dir_off = kDirOff;
    open.dir_cap = kDirCap;
    open.v[1].version = 1;
    open.v[1].until_row = 1000;
    open.v[1].lanes_off = kSpanOff;
    open.v[1].lanes = 1;
  }

  bool Inside(const void* at, uint64_t bytes, uint32_t slot) const {
    const auto begin = reinterpret_cast<uintptr_t>(extents_[slot]);
    const auto place = reinterpret_cast<uintptr_t>(at);
    return place >= begin && place - begin <= kExtentBytes &&
           bytes <= kExtentBytes - (place - begin);
  }
  bool Inside(const void* at, uint64_t bytes) const {
    return Inside(at, bytes, 0) || Inside(at, bytes, 1);
  }

 private:
  std::shared_ptr<SessionState> session_;
  UniqueFd daemon_;
  std::array<std::byte*, 2> extents_{};
};

ClientModel Model() {
  ClientModel model;
  model.slots_per_block = kSlots;
  model.vocabulary_size = 100;
  model.row_bytes.assign(2, {16, 16});
  model.kv_heads.assign(2, 1);
  model.query_heads.assign(2, 2);
  model.k_head_dim.assign(2, 8);
  model.v_head_dim.assign(2, 8);
  return model;
}

// The daemon's answer is honest here: other targets are about it.
v1::OpenSequenceResponse Opened(bool mass) {
  v1::OpenSequenceResponse opened;
  opened.set_uid(kUid);
  opened.set_sequence_id(1);
  opened.add_lane_of_layer(0);
  opened.add_lane_of_layer(0);
  v1::LaneReport* const lane = opened.add_lanes();
  lane->set_position_sets(1);
  lane->set_mass_decay(1);
  if (mass) {
    lane->set_mass_sets(2);
    lane->set_kept_rows_max(64);
    lane->set_generation(1);
    lane->set_offset(kExtentBytes - 8192);
  }
  opened.set_rows(40);
  return opened;
}

// What an attention loop reads and writes.
void CheckViews(const World& world, const StepView& step) {
  for (const LayerView& view : step.layers) {
    for (const KeptRunView& run : view.kept) {
      Require(world.Inside(run.k, uint64_t{run.rows} * run.k_stride));
      Require(world.Inside(run.v, uint64_t{run.rows} * run.v_stride));
      Require(world.Inside(run.positions, uint64_t{4} * run.rows));
      Require(world.Inside(run.tokens, uint64_t{4} * run.rows));
    }
    const auto recent = [&](uint64_t row) {
      Require(row >= view.recent_base &&
              row < view.recent_base + view.recent.size() * view.slots_per_block);
      Require(world.Inside(view.KeyOf(row), view.k_stride, 0));
      Require(world.Inside(view.ValueOf(row), view.v_stride, 0));
      std::memset(view.KeyOf(row), 1, view.k_stride);
      std::memset(view.ValueOf(row), 2, view.v_stride);
    };
    for (const uint64_t row : view.sticky) recent(row);
    for (uint64_t q = step.row; q < step.row + step.count; ++q) {
      for (uint64_t row = view.WindowFirst(q); row <= q; ++row) recent(row);
    }
    if (view.mass.kept != nullptr && view.mass.kept_rows > 0) view.mass.kept[0] = 1;
    for (uint64_t row = 0; view.mass.recent != nullptr && row < view.mass.recent_rows; ++row) {
      view.mass.recent[row] += 1;
    }
  }
}

void Step(World& world, SequenceState& sequence, Input& input) {
  switch (input.Number(1) % 8) {
    case 0: {  // any word of the arena
      const uint64_t off = kArenaOff + input.Number(2) % (kArenaEnd - kArenaOff - 8);
      const uint64_t value = input.Number(8);
      std::memcpy(world.d() + off, &value, 8);
      return;
    }
    case 1: {  // any word of the board
      const uint64_t off = kBoardsOff + input.Number(1) % (sizeof(shm::SeqBoard) / 8) * 8;
      const uint64_t value = input.Number(8);
      std::memcpy(world.d() + off, &value, 8);
      return;
    }
    case 2: {  // a small number at a word of board, spans or runs
      constexpr std::array<uint64_t, 5> kPlaces = {kBoardsOff, kDirOff, kSpanOff, kRunsOff,
                                                   kStickyOff};
      const uint64_t place = kPlaces[input.Number(1) % kPlaces.size()];
      const auto value = static_cast<uint32_t>(input.Number(2));
      std::memcpy(world.d() + place + input.Number(1) % 48 * 4, &value, 4);
      return;
    }
    case 3: {  // a second version, like the first but for its rows
      shm::SeqBoard& board = world.board();
      const uint64_t version = board.published.load() + 1;
      board.v[version & 1] = board.v[(version - 1) & 1];
      board.v[version & 1].version = version;
      board.v[version & 1].from_row = input.Number(1);
      board.v[version & 1].until_row = input.Number(2);
      board.published.store(version);
      return;
    }
    case 4: {  // bytes of the ring
      const uint64_t off = input.Number(1) % 2 == 0 ? shm::kDaemonRingWordsOff + input.Number(1)
                                                    : kRingOff + input.Number(2) % 8192;
      const uint64_t value = input.Number(8);
      std::memcpy(world.d() + std::min(off, kDBytes - 8), &value, 8);
      return;
    }
    case 5: {
      const absl::StatusOr<StepView> step =
          sequence.Begin(static_cast<uint32_t>(input.Number(1) % 40));
      if (!step.ok()) return;
      CheckViews(world, *step);
      const uint64_t count = input.Number(1) % 40;
      (void)sequence.Commit(std::vector<uint32_t>(std::min<uint64_t>(count, step->count), 7));
      return;
    }
    case 6:
      (void)sequence.Truncate(input.Number(1));
      return;
    case 7:
      (void)sequence.MeasureFootprint();
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  static World& world = *new World();
  world.Reset();
  Input input(data, size);
  const uint64_t first = input.Number(1);
  const absl::StatusOr<std::unique_ptr<SequenceState>> sequence =
      SequenceState::Create(world.session(), Model(), Opened((first & 1) != 0));
  if (!sequence.ok()) std::abort();  // all is honest so far
  while (!input.empty()) Step(world, **sequence, input);
  return 0;
}
