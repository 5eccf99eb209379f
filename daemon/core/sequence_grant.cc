// Recent blocks of a sequence: granted ahead of the engine, their token ids taken, taken back
// behind a truncation.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

absl::Status Sequence::PrepareBoard() {
  const uint64_t slots = context_.model->slots_per_block();
  dir_cap_ = static_cast<uint32_t>(
      DivideUp(std::min(context_.limits->recent_rows_max, context_.max_rows), slots) + 2);
  dir_bytes_ = sizeof(shm::RecentRef) * lanes_.size() * dir_cap_;
  KVASIR_ASSIGN_OR_RETURN(dir_off_, context_.arena->Allocate(dir_bytes_));
  shm::SeqBoard& board = *context_.board;
  board.slots_per_block = static_cast<uint32_t>(slots);
  board.lanes = static_cast<uint32_t>(lanes_.size());
  board.dir_off = dir_off_;
  board.dir_cap = dir_cap_;
  board.low_water = static_cast<uint32_t>(slots);
  board.consumed = rows_;
  board.granted.store(0, std::memory_order_relaxed);
  board.published.store(0, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status Sequence::AddBlock(size_t lane_index) {
  Lane& lane = lanes_[lane_index];
  if (lane.recent.size() + 1 >= dir_cap_) {
    return ResourceExhausted(
        "sequence has too many rows that are not compacted: rows={} limits.rows_max={}",
        lane.recent.size() * lane.recent_block.slots, context_.limits->recent_rows_max);
  }
  KVASIR_ASSIGN_OR_RETURN(const Group group, lane.recent_allocator->Allocate());
  const absl::StatusOr<ExtentTable::Ref> ref = context_.extents->RefOf(*group.extent);
  if (!ref.ok()) {
    lane.recent_allocator->Free(group);
    return ref.status();
  }
  const uint64_t block = lane.base_block + lane.recent.size();
  const shm::RecentRef entry{ref->slot, ref->generation, group.offset};
  std::memcpy(context_.d + dir_off_ + sizeof(entry) * (lane_index * dir_cap_ + block % dir_cap_),
              &entry, sizeof(entry));
  lane.recent.push_back(group);
  return absl::OkStatus();
}

uint64_t Sequence::GrantedAhead(uint64_t rows) const {
  const uint64_t slots = context_.model->slots_per_block();
  // The block in use and one more, as far as the sequence may ever have them.
  const uint64_t bound = std::max(context_.max_rows, rows);
  const uint64_t blocks_max = bound / slots + (bound % slots > 0 ? 1 : 0);
  return std::min(rows / slots + 2, blocks_max) * slots;
}

absl::Status Sequence::Grant(uint64_t rows) {
  const uint64_t slots = context_.model->slots_per_block();
  if (rows > uint64_t{1} << 32) {
    return InvalidArgument("granted_rows is out of bounds: value={} max={}", rows,
                           uint64_t{1} << 32);
  }
  if (rows > context_.max_rows) {
    return OutOfRange("rows are beyond the sequence's bound: rows={} max_rows={}", rows,
                      context_.max_rows);
  }
  const uint64_t target = std::max(RoundUp(rows, slots), GrantedAhead(rows_));
  absl::Status status;
  uint64_t granted = kNoRow;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    while (status.ok() && (lane.base_block + lane.recent.size()) * slots < target) {
      status = AddBlock(i);
    }
    granted = std::min(granted, (lane.base_block + lane.recent.size()) * slots);
  }
  if (granted > granted_) {
    granted_ = granted;
    // release: pairs with the acquire in the client's Sequence::Begin()
    context_.board->granted.store(granted_, std::memory_order_release);
  }
  return granted_ >= rows ? absl::OkStatus() : status;
}

absl::Status Sequence::TakeTokens(uint64_t rows) {
  const Lane& lane = lanes_.front();  // the engine writes ids in the first lane's trailers
  const uint64_t slots = lane.recent_block.slots;
  std::vector<TokenId> ids;
  ids.reserve(rows - rows_);
  while (rows_ + ids.size() < rows) {
    const uint64_t row = rows_ + ids.size();
    const std::byte* const trailer =
        lane.recent[row / slots - lane.base_block].trailer(lane.recent_block.pos_off);
    const uint64_t count = std::min(rows - row, slots - row % slots);
    const size_t at = ids.size();
    ids.resize(at + count);
    std::memcpy(&ids[at],
                trailer + lane.recent_block.tok_off - lane.recent_block.pos_off + 4 * (row % slots),
                4 * count);
  }
  const uint32_t vocabulary = context_.model->description().vocabulary_size;
  for (const TokenId id : ids) {  // the private copy is judged
    if (id >= vocabulary) {
      return InvalidArgument("token id beyond the vocabulary: sequence={} token={} max={}",
                             identity_.id, id, vocabulary - 1);
    }
  }
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  for (Lane& each : lanes_) each.policy->Append(ids);
  if (chain_) chain_->Append(ids);
  rows_ = rows;
  context_.board->consumed = rows;
  return absl::OkStatus();
}

void Sequence::ReturnBlocksBehind(uint64_t rows) {
  const uint64_t ahead = GrantedAhead(rows);
  if (granted_ <= ahead) return;
  granted_ = ahead;
  for (Lane& lane : lanes_) {
    while ((lane.base_block + lane.recent.size()) * lane.recent_block.slots > granted_) {
      lane.recent_allocator->Free(lane.recent.back());
      lane.recent.pop_back();
    }
  }
  // The engine waits for the answer of its Truncate and reads this after it.
  context_.board->granted.store(granted_, std::memory_order_release);
}

}  // namespace kvasir::core
