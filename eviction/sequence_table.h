// Running sequences by id: a slot is used again, its stamp is not. Thread-compatible; O(1).
#ifndef KVASIR_EVICTION_SEQUENCE_TABLE_H_
#define KVASIR_EVICTION_SEQUENCE_TABLE_H_

#include <cstdint>
#include <vector>

#include "eviction/eviction_policy.h"

namespace kvasir::eviction {

template <typename T>
class SequenceTable {
 public:
  // A slot whose T is what its last user left, so that its memory is used again.
  SequenceId Open() {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(entries_.size()));
      entries_.emplace_back();
    }
    const uint32_t slot = free_.back();
    free_.pop_back();
    entries_[slot].open = true;
    return {slot, entries_[slot].stamp};
  }

  T* Find(SequenceId id) {
    if (id.slot >= entries_.size()) return nullptr;
    Entry& entry = entries_[id.slot];
    return entry.open && entry.stamp == id.stamp ? &entry.value : nullptr;
  }

  // REQUIRES: Find(id).
  void Close(SequenceId id) {
    entries_[id.slot].open = false;
    ++entries_[id.slot].stamp;
    free_.push_back(id.slot);
  }

  // Without what the values themselves allocated.
  uint64_t MetadataBytes() const {
    return entries_.capacity() * sizeof(Entry) + free_.capacity() * sizeof(uint32_t);
  }

 private:
  struct Entry {
    T value;
    uint32_t stamp = 0;
    bool open = false;
  };
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_SEQUENCE_TABLE_H_
