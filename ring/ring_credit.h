// RingCredit: what an engine has under way, counted by its submitting and its reading thread.
//
// The reading thread gives back with release after it has moved `cq_head`, the submitting one looks
// with acquire before it moves `sq_tail`: so a daemon that sees a submission also sees the room
// that it was made in.
#ifndef KVASIR_RING_RING_CREDIT_H_
#define KVASIR_RING_RING_CREDIT_H_

#include <atomic>
#include <cstdint>

namespace kvasir::ring {

class RingCredit {
 public:
  RingCredit() = default;
  RingCredit(const RingCredit&) = delete;
  RingCredit& operator=(const RingCredit&) = delete;

  void Take(uint32_t answer_room) {
    answer_room_.fetch_add(answer_room, std::memory_order_relaxed);
    in_flight_.fetch_add(1, std::memory_order_relaxed);
  }
  void GiveBack(uint32_t answer_room) {
    answer_room_.fetch_sub(answer_room, std::memory_order_release);
    in_flight_.fetch_sub(1, std::memory_order_release);
  }
  // Submissions whose completions were not read.
  uint32_t in_flight() const { return in_flight_.load(std::memory_order_acquire); }
  // Of the answer area, kept for them.
  uint32_t answer_room() const { return answer_room_.load(std::memory_order_acquire); }

 private:
  std::atomic<uint32_t> in_flight_{0};
  std::atomic<uint32_t> answer_room_{0};
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_RING_CREDIT_H_
