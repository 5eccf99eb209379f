#include "allocator/tier/block_transfer.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace kvasir {
namespace {

// A request's tag says whose it is and which: slots and pieces are far fewer.
constexpr unsigned kTagBits = 32;

uint64_t BytesIn(std::span<const iovec> parts) {
  uint64_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  return bytes;
}

}  // namespace

void PageBuffer::Free::operator()(std::byte* data) const { std::free(data); }

std::byte* PageBuffer::Ensure(size_t bytes) {
  if (bytes > bytes_) {
    data_.reset();
    bytes_ = RoundUp(bytes, kPageBytes);
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes_)));
    // No exception: requests of other blocks may be in flight.
    KVASIR_CHECK(data_ != nullptr, "no memory for a buffer: bytes={}", bytes_);
  }
  return data_.get();
}

void BlockTransfer::MakeRequests(bool write, std::span<const int> fds,
                                 std::span<const Piece> pieces, size_t slot_index) {
  Slot& slot = slots_[slot_index];
  // The stream cut at the pieces' ends. First all parts, so that no pointer to them moves.
  slot.parts.clear();
  std::vector<size_t> counts;
  size_t from = 0;
  size_t used = 0;  // bytes of stream[from] that are given out
  for (const Piece& piece : pieces) {
    const size_t before = slot.parts.size();
    for (uint64_t left = piece.bytes; left > 0;) {
      KVASIR_CHECK(from < slot.stream.size(), "a block is shorter than its pieces");
      const iovec& part = slot.stream[from];
      const size_t here = std::min<uint64_t>(left, part.iov_len - used);
      slot.parts.push_back({static_cast<std::byte*>(part.iov_base) + used, here});
      left -= here;
      used += here;
      if (used == part.iov_len) {
        ++from;
        used = 0;
      }
    }
    counts.push_back(slot.parts.size() - before);
  }
  slot.requests.clear();
  size_t at = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    slot.requests.push_back({.write = write,
                             .fd = fds[pieces[i].area],
                             .offset = pieces[i].offset,
                             .parts = std::span(slot.parts).subspan(at, counts[i]),
                             .tag = uint64_t{slot_index} << kTagBits | i});
    at += counts[i];
  }
  slot.next = slot.open = 0;
  slot.error = 0;
  slot.cut = false;
}

void BlockTransfer::SubmitSome() {
  for (const size_t i : busy_) {
    Slot& slot = slots_[i];
    if (slot.next == 0 && moving_ == blocks_) return;  // later ones have not begun either
    while (slot.next < slot.requests.size()) {
      if (!queue_->Submit(slot.requests[slot.next])) return;
      if (slot.next == 0) ++moving_;
      ++slot.next;
      ++slot.open;
    }
  }
}

void BlockTransfer::WaitForOne() {
  const IoDone done = queue_->Wait();
  const size_t index = done.tag >> kTagBits;
  Slot& slot = slots_[index];
  const IoRequest& request = slot.requests[done.tag & ((uint64_t{1} << kTagBits) - 1)];
  --slot.open;
  if (done.result < 0) {
    if (slot.error == 0) slot.error = static_cast<int>(-done.result);
  } else if (static_cast<uint64_t>(done.result) < BytesIn(request.parts)) {
    slot.cut = true;
  }
  if (slot.open > 0 || slot.next < slot.requests.size()) return;
  --moving_;
  busy_.erase(std::find(busy_.begin(), busy_.end(), index));
  ended_.push_back(index);
}

void BlockTransfer::Run(bool write, size_t count, std::span<const int> fds, const Prepare& prepare,
                        const Finish& finish) {
  std::vector<size_t> idle;
  for (size_t i = slots_.size(); i-- > 0;) idle.push_back(i);
  std::vector<Piece> pieces;
  size_t item = 0;
  while (item < count || !busy_.empty() || !ended_.empty()) {
    // The device first: it works while blocks are finished and prepared.
    SubmitSome();
    if (!ended_.empty()) {
      finish(slots_[ended_.back()]);
      idle.push_back(ended_.back());
      ended_.pop_back();
    } else if (item < count && !idle.empty()) {
      Slot& slot = slots_[idle.back()];
      slot.item = item++;
      pieces.clear();
      slot.stream.clear();
      if (!prepare(slot.item, slot, pieces)) continue;
      MakeRequests(write, fds, pieces, idle.back());
      busy_.push_back(idle.back());
      idle.pop_back();
    } else {
      WaitForOne();
    }
  }
}

}  // namespace kvasir
