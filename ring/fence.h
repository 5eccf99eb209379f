// The full fence between a store and a load of two different words: what keeps a wake-up from being
// lost (docs/shm_protocol.md, "The four fences").
#ifndef KVASIR_RING_FENCE_H_
#define KVASIR_RING_FENCE_H_

#include <atomic>

namespace kvasir::ring {

inline void FullFence() {
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer does not know fences, and g++ refuses them under it. A locked instruction on a
  // word that nobody shares is as strong on x86-64, and hides no race from the sanitizer.
  std::atomic<int> own{0};
  own.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace kvasir::ring

#endif  // KVASIR_RING_FENCE_H_
