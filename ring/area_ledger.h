// AreaLedger: which bytes of a payload or answer area are in use. Given out in the order of the
// entries, and back in the same order; an area that is empty begins at its start again, so that a
// session that waits for each answer stays in a few pages.
//
// Private memory of the area's writer: the peer never sees it. Not thread-safe. Allocates when it
// is made and never again.
#ifndef KVASIR_RING_AREA_LEDGER_H_
#define KVASIR_RING_AREA_LEDGER_H_

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "proto/shm/command_ring_layout.h"

namespace kvasir::ring {

class AreaLedger {
 public:
  // Both are powers of two.
  AreaLedger(uint32_t area_bytes, uint32_t entries) : area_bytes_(area_bytes), taken_(entries, 0) {}

  static constexpr uint32_t Rounded(uint32_t bytes) {
    return static_cast<uint32_t>(RoundUp(bytes, shm::kRingUnit));
  }
  uint32_t free_bytes() const { return area_bytes_ - used_; }

  // Takes `bytes` for the entry with this counter; returns their offset, 0 for none.
  // REQUIRES: Rounded(bytes) <= free_bytes(), and the entry before it was the last one.
  uint32_t Take(uint32_t entry, uint32_t bytes) {
    if (used_ == 0) next_ = 0;
    const uint32_t rounded = Rounded(bytes);
    taken_[entry & (taken_.size() - 1)] = rounded;
    if (rounded == 0) return 0;
    const uint32_t off = next_;
    next_ = (next_ + rounded) & (area_bytes_ - 1);
    used_ += rounded;
    return off;
  }

  // Entries from counter `from` to before `to` are done with.
  void GiveBack(uint32_t from, uint32_t to) {
    for (; from != to; ++from) used_ -= taken_[from & (taken_.size() - 1)];
  }

 private:
  const uint32_t area_bytes_;
  uint32_t next_ = 0;
  uint32_t used_ = 0;
  std::vector<uint32_t> taken_;  // by entry
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_AREA_LEDGER_H_
