// Records by 32-bit handles, in chunks: a record never moves, growth copies nothing, and no more
// than one chunk is unused.
//
// T is a plain record; its member kLink holds the list of free records while it is free, and the
// record is value-initialised when it is taken. Thread-compatible. Cost: O(1); an allocation once
// in kChunk records that were never taken before. Memory is given back by the destructor alone.
#ifndef KVASIR_INDEX_SLAB_H_
#define KVASIR_INDEX_SLAB_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace kvasir {

inline constexpr uint32_t kNoHandle = std::numeric_limits<uint32_t>::max();

template <typename T, uint32_t T::*kLink>
class Slab {
 public:
  static constexpr uint32_t kChunk = 1024;

  uint32_t Take() {
    if (free_ == kNoHandle) {
      if (made_ % kChunk == 0) chunks_.push_back(std::make_unique<T[]>(kChunk));
      ++taken_;
      return made_++;
    }
    const uint32_t handle = free_;
    free_ = (*this)[handle].*kLink;
    (*this)[handle] = T();
    ++taken_;
    return handle;
  }

  // REQUIRES: taken.
  void Give(uint32_t handle) {
    (*this)[handle].*kLink = free_;
    free_ = handle;
    --taken_;
  }

  T& operator[](uint32_t handle) { return chunks_[handle / kChunk][handle % kChunk]; }
  const T& operator[](uint32_t handle) const { return chunks_[handle / kChunk][handle % kChunk]; }

  uint32_t taken() const { return taken_; }
  uint32_t made() const { return made_; }  // handles so far: 0..made()-1, taken or free
  uint64_t MetadataBytes() const {
    return chunks_.size() * kChunk * sizeof(T) + chunks_.capacity() * sizeof(chunks_[0]);
  }

 private:
  std::vector<std::unique_ptr<T[]>> chunks_;
  uint32_t made_ = 0;
  uint32_t taken_ = 0;
  uint32_t free_ = kNoHandle;
};

}  // namespace kvasir

#endif  // KVASIR_INDEX_SLAB_H_
