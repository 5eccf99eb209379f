// Tells the processor that this is a loop that waits for another core.
#ifndef KVASIR_RING_PAUSE_H_
#define KVASIR_RING_PAUSE_H_

namespace kvasir::ring {

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace kvasir::ring

#endif  // KVASIR_RING_PAUSE_H_
