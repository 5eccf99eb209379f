#include "client/sequence_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/status_macros.h"

namespace kvasir {
bool SequenceState::HasNewTable() const {
  // acquire: pairs with the release in core::Sequence::Publish()
  const uint64_t published = board_.published.load(std::memory_order_acquire);
  return published != table_.version && rows_ >= board_.v[published & 1].from_row;
}

bool SequenceState::Refresh() {
  // acquire: pairs with the release in core::Sequence::Publish()
  const uint64_t published = board_.published.load(std::memory_order_acquire);
  if (table_loaded_ && published == table_.version) return false;
  const shm::VersionDesc& desc = board_.v[published & 1];
  // Constant while this side has not adopted it, so a plain copy cannot be torn.
  if (table_loaded_ && rows_ < desc.from_row) return false;
  table_ = desc;
  return true;
}

absl::Status SequenceState::LoadTable() {
  table_loaded_ = false;  // until all of it is judged
  const auto* spans = session_->InD<shm::LaneSpan>(table_.lanes_off, lanes_.size());
  if (table_.lanes != lanes_.size() || spans == nullptr) {
    return DataLoss("block table is malformed: version={} lanes={} lanes_off={}", table_.version,
                    table_.lanes, table_.lanes_off);
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    LaneViews& lane = lanes_[i];
    const shm::LaneSpan span = spans[i];
    KVASIR_RETURN_IF_ERROR(LoadRuns(lane, span));
    const auto* sticky = session_->InD<uint64_t>(span.sticky_off, span.sticky);
    if (sticky == nullptr || span.recent_first > rows_) {
      return DataLoss(
          "block table is malformed: version={} lane={} sticky={} recent_first={} max={}",
          table_.version, i, span.sticky, span.recent_first, rows_);
    }
    lane.sticky.assign(sticky, sticky + span.sticky);
    // Whoever attends looks them up among the recent rows.
    uint64_t low = span.recent_first;
    for (const uint64_t row : lane.sticky) {
      if (row < low || row >= rows_) {
        return DataLoss("sticky row is out of bounds: version={} lane={} row={} min={} max={}",
                        table_.version, i, row, low, rows_);
      }
      low = row + 1;
    }
    lane.kept_rows = span.kept_rows;
    lane.window = span.window;
    lane.recent_first = span.recent_first;
    lane.records_from = span.records_from;
    ShiftRecent(lane, lane.recent_first / model_.slots_per_block);
    ClearKeptMass(lane);
  }
  table_loaded_ = true;
  return absl::OkStatus();
}

absl::StatusOr<const shm::GroupGeometry*> SequenceState::GeometryOf(
    const LaneViews& lane, const shm::RunEntry& run) const {
  const shm::GroupGeometry* geometry =
      run.group_slots == lane.block.slots ? &lane.block : &lane.small;
  if (run.encoding == static_cast<uint16_t>(shm::RunEncoding::kRecords)) {
    geometry = &lane.record_block;
  } else if (run.encoding != static_cast<uint16_t>(lane.block.v_bits > 0
                                                       ? shm::RunEncoding::kCodedValues
                                                       : shm::RunEncoding::kAsWritten)) {
    return DataLoss("run has another encoding than its lane: version={} encoding={} v_bits={}",
                    table_.version, run.encoding, lane.block.v_bits);
  }
  if (geometry->slots == 0 || run.group_slots != geometry->slots ||
      uint64_t{run.first_slot} + run.rows > geometry->slots || run.group_off % kPageBytes != 0) {
    return DataLoss("run lies outside its group: version={} first_slot={} rows={} slots={} off={}",
                    table_.version, run.first_slot, run.rows, geometry->slots, run.group_off);
  }
  return geometry;
}

absl::Status SequenceState::LoadRuns(LaneViews& lane, const shm::LaneSpan& span) {
  const auto* runs = session_->InD<shm::RunEntry>(span.runs_off, span.runs);
  if (runs == nullptr) {
    return DataLoss("block table is malformed: version={} runs={}", table_.version, span.runs);
  }
  uint64_t kept_rows = 0;
  for (auto& views : lane.kept) views.clear();
  for (auto& views : lane.records) views.clear();
  for (uint32_t r = 0; r < span.runs; ++r) {
    const shm::RunEntry run = runs[r];  // what is judged is what is used
    KVASIR_ASSIGN_OR_RETURN(const shm::GroupGeometry* const geometry, GeometryOf(lane, run));
    KVASIR_ASSIGN_OR_RETURN(const GroupPlace place,
                            session_->extents->GroupAt(run.extent, run.generation, run.group_off,
                                                       *geometry, session_->DeadlineFromNow()));
    if (geometry == &lane.record_block) {
      AddRecord(lane, run, place);
      if ((run.flags & shm::kRunWindowed) != 0) continue;  // no kept rows
    } else {
      AddKept(lane, run, *geometry, place);
    }
    kept_rows += run.rows;
  }
  if (kept_rows == span.kept_rows) return absl::OkStatus();
  return DataLoss("block table is malformed: version={} kept_rows={} of_runs={}", table_.version,
                  span.kept_rows, kept_rows);
}

void SequenceState::AddKept(LaneViews& lane, const shm::RunEntry& run,
                            const shm::GroupGeometry& geometry, const GroupPlace& place) {
  const uint64_t tok_off = geometry.tok_off - geometry.pos_off;
  for (size_t l = 0; l < lane.layers.size(); ++l) {
    const shm::LayerRowBytes bytes = geometry.row_bytes[l];
    KeptRunView view;
    view.k = place.planes + geometry.k_off[l] + uint64_t{run.first_slot} * bytes.k;
    view.v = place.planes + geometry.v_off[l] + uint64_t{run.first_slot} * bytes.v;
    view.rows = run.rows;
    view.k_stride = bytes.k;
    view.v_stride = bytes.v;
    view.query_offset = run.query_offset;
    view.query_max = run.query_max;
    const uint64_t at = uint64_t{lane.first_column[l]} * geometry.slots + run.first_slot;
    view.positions = reinterpret_cast<const uint32_t*>(place.trailer) + at;
    view.tokens = reinterpret_cast<const uint32_t*>(place.trailer + tok_off) + at;
    view.v_bits = geometry.v_bits;
    view.head_stride = lane.heads_keep_own ? geometry.slots : 0;
    lane.kept[l].push_back(view);
  }
}

void SequenceState::AddRecord(LaneViews& lane, const shm::RunEntry& run, const GroupPlace& place) {
  const shm::GroupGeometry& geometry = lane.record_block;
  const uint64_t tok_off = geometry.tok_off - geometry.pos_off;
  for (size_t l = 0; l < lane.layers.size(); ++l) {
    RecordView view;
    view.k = place.planes + geometry.k_off[l];
    view.v = place.planes + geometry.v_off[l];
    view.first_slot = run.first_slot;
    view.rows = run.rows;
    view.windowed = (run.flags & shm::kRunWindowed) != 0;
    view.first_row = run.first_row;
    view.query_offset = run.query_offset;
    view.query_max = run.query_max;
    view.positions = reinterpret_cast<const uint32_t*>(place.trailer) + run.first_slot;
    view.tokens = reinterpret_cast<const uint32_t*>(place.trailer + tok_off) + run.first_slot;
    lane.records[l].push_back(view);
  }
}

void SequenceState::ShiftRecent(LaneViews& lane, uint64_t first_block) {
  const uint64_t gone = std::min<uint64_t>(first_block - lane.first_block, lane.trailers.size());
  const auto count = static_cast<ptrdiff_t>(gone);
  lane.trailers.erase(lane.trailers.begin(), lane.trailers.begin() + count);
  for (auto& views : lane.recent) views.erase(views.begin(), views.begin() + count);
  lane.first_block = first_block;
}

absl::Status SequenceState::ExtendRecent() {
  // acquire: pairs with the release in core::Sequence::Grant()
  const uint64_t slots = model_.slots_per_block;
  const uint64_t granted = board_.granted.load(std::memory_order_acquire) / slots * slots;
  granted_ = 0;  // until all of them are there: whoever tries again reads the directory anew
  const uint64_t dir_cap = board_.dir_cap;
  const auto* dir = session_->InD<shm::RecentRef>(board_.dir_off, dir_cap * lanes_.size());
  if (dir == nullptr || dir_cap == 0) {
    return DataLoss("directory of recent blocks is malformed: id={} dir_cap={}", id_, dir_cap);
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    LaneViews& lane = lanes_[i];
    const uint64_t blocks = granted / slots;
    if (blocks > lane.first_block && blocks - lane.first_block > dir_cap) {
      return DataLoss("more rows are granted than the directory has: id={} granted={} dir_cap={}",
                      id_, granted, dir_cap);
    }
    for (uint64_t block = lane.first_block + lane.trailers.size(); block < blocks; ++block) {
      const shm::RecentRef ref = dir[i * dir_cap + block % dir_cap];
      if (ref.group_off % kPageBytes != 0) {
        return DataLoss("recent block is misaligned: id={} off={}", id_, ref.group_off);
      }
      KVASIR_ASSIGN_OR_RETURN(
          const GroupPlace place,
          session_->extents->GroupAt(ref.extent, ref.generation, ref.group_off, lane.recent_block,
                                     session_->DeadlineFromNow(), Access::kReadWrite));
      lane.trailers.push_back(place.trailer);
      for (size_t l = 0; l < lane.layers.size(); ++l) {
        lane.recent[l].push_back(
            {place.planes + lane.recent_block.k_off[l], place.planes + lane.recent_block.v_off[l]});
      }
      if (lane.recent_block.trailer.mass_sets > 0) {  // may have been another sequence's
        std::memset(place.trailer + lane.recent_block.mass_off - lane.recent_block.pos_off, 0,
                    size_t{4} * lane.recent_block.trailer.mass_sets * model_.slots_per_block);
      }
    }
  }
  granted_ = granted;
  return absl::OkStatus();
}

void SequenceState::MakeLayerViews() {
  for (const LaneViews& lane : lanes_) {
    for (size_t l = 0; l < lane.layers.size(); ++l) {
      LayerView& view = layers_[lane.layers[l]];
      view.kept = lane.kept[l];
      if (!lane.record_formats.empty()) {
        view.records = lane.records[l];
        view.record_format = &lane.record_formats[l];
        view.records_from = lane.records_from;
      }
      view.recent = lane.recent[l];
      view.recent_base = lane.first_block * model_.slots_per_block;
      view.recent_first = lane.recent_first;
      view.window = lane.window;
      view.sticky = lane.sticky;
      view.slots_per_block = model_.slots_per_block;
      view.k_stride = lane.recent_block.row_bytes[l].k;
      view.v_stride = lane.recent_block.row_bytes[l].v;
      view.unrotated = unrotated_;
      view.far_position = far_position_;
    }
  }
}

absl::Status SequenceState::CheckAlive() const {
  if (board_.uid.load(std::memory_order_acquire) == uid_) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(session_->CheckOpen());  // all of them end with it
  const bool taken = board_.state.load(std::memory_order_acquire) ==
                     static_cast<uint32_t>(shm::BoardState::kTakenBack);
  return Aborted("the daemon ended the sequence{}: id={}",
                 taken ? ", since other tenants want the memory that its tenant had borrowed" : "",
                 id_);
}

absl::Status SequenceState::Truncate(uint64_t rows) {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  KVASIR_RETURN_IF_ERROR(AwaitStream());
  KVASIR_ASSIGN_OR_RETURN(const uint32_t uid, CallTruncate(rows));
  return StartOver(rows, uid);
}

absl::Status SequenceState::StartOver(uint64_t rows, uint32_t uid) {
  ForbidAtOnce();
  rows_ = rows;
  begun_ = 0;
  uid_ = uid;
  // The daemon may have ended the table in use, and counts a newer one that was due as adopted; no
  // row may come back that needs an older one. A table that is due only later is still to come.
  const uint64_t version = table_loaded_ ? table_.version : 0;
  const uint64_t published = board_.published.load(std::memory_order_acquire);
  table_ = board_.v[published & 1];
  if (rows_ < table_.from_row) table_ = board_.v[(published - 1) & 1];
  const bool changed = table_.version != version;
  if (changed) KVASIR_RETURN_IF_ERROR(LoadTable());
  // Blocks behind the rows went back to the daemon.
  const uint64_t granted = board_.granted.load(std::memory_order_acquire);
  for (LaneViews& lane : lanes_) {
    const uint64_t blocks = granted / model_.slots_per_block;
    const uint64_t left = blocks - std::min(blocks, lane.first_block);
    if (lane.trailers.size() <= left) continue;
    lane.trailers.resize(left);
    for (auto& views : lane.recent) views.resize(left);
  }
  granted_ = changed ? 0 : std::min(granted_, granted);  // 0: the directory is read anew
  MakeLayerViews();
  WriteDesk();
  return absl::OkStatus();
}

absl::Status SequenceState::Close() {
  if (closed_) return absl::OkStatus();
  closed_ = true;
  ForbidAtOnce();
  // In vain: who has begun what never ends has no other way to close. Where the daemon has ended it
  // there is nothing to wait for.
  if (CheckAlive().ok() && session_->CheckOpen().ok()) (void)AwaitStream();
  under_way_.clear();  // their words may go now
  return CallClose();
}

}  // namespace kvasir
