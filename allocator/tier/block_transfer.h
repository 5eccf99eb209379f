// BlockTransfer: moves many blocks between memory and files at once: some blocks on their way, each
// as one request a piece, while the caller works on the next one.
//
// Not thread-safe; keeps its buffers, so one serves many batches.
#ifndef KVASIR_ALLOCATOR_TIER_BLOCK_TRANSFER_H_
#define KVASIR_ALLOCATOR_TIER_BLOCK_TRANSFER_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "allocator/tier/block_io.h"
#include "allocator/tier/space_map.h"

namespace kvasir {

// Memory that begins at a page, as O_DIRECT wants it. Grows, never shrinks.
class PageBuffer {
 public:
  // At least `bytes`; what it held is lost when it grows. Pages that were used once stay touched.
  std::byte* Ensure(size_t bytes);
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

class BlockTransfer {
 public:
  // A block on its way.
  struct Slot {
    PageBuffer head;            // a page for the header, and one for the payload's end
    PageBuffer bounce;          // the payload, where the caller's memory does not suit O_DIRECT
    std::vector<iovec> stream;  // the block as it lies in the file: page multiples at pages

    int error = 0;     // errno of the first request that failed
    bool cut = false;  // a request moved less than it was to
    size_t item = 0;

   private:
    friend class BlockTransfer;
    std::vector<iovec> parts;
    std::vector<IoRequest> requests;
    size_t next = 0;  // request to submit
    size_t open = 0;  // requests in flight
  };

  // `blocks` on their way at once, and one more that waits with its checksum made. REQUIRES:
  // blocks >= 1.
  BlockTransfer(std::unique_ptr<IoQueue> queue, size_t blocks)
      : queue_(std::move(queue)), blocks_(blocks), slots_(blocks + 1) {}

  // Fills the slot's `stream` and says where it goes; false: there is nothing to do for this item.
  using Prepare = std::function<bool(size_t item, Slot& slot, std::vector<Piece>& pieces)>;
  // The block is where it was to go, or the slot says why not.
  using Finish = std::function<void(Slot& slot)>;

  // Takes items 0 to count - 1, in order; they finish in any. `fds[area]` is the file of an area.
  void Run(bool write, size_t count, std::span<const int> fds, const Prepare& prepare,
           const Finish& finish);

 private:
  void MakeRequests(bool write, std::span<const int> fds, std::span<const Piece> pieces,
                    size_t slot_index);
  // Until the queue is full or enough blocks are on their way.
  void SubmitSome();
  void WaitForOne();

  std::unique_ptr<IoQueue> queue_;
  const size_t blocks_;
  std::vector<Slot> slots_;
  std::vector<size_t> busy_;   // prepared, in order, and not ended
  std::vector<size_t> ended_;  // to be finished
  size_t moving_ = 0;          // slots with requests submitted, not ended
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_BLOCK_TRANSFER_H_
