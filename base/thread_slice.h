// How long the kernel lets a thread run before another one that is runnable has its turn.
#ifndef KVASIR_BASE_THREAD_SLICE_H_
#define KVASIR_BASE_THREAD_SLICE_H_

namespace kvasir {

// Of the calling thread, and of those that it starts from then on. A thread of short slices gets no
// more of a processor than others, but gets it at once when it wakes up (EEVDF, from Linux 6.12;
// kernels before ignore it).
enum class ThreadSlice { kShort, kOrdinary };
void SetThreadSlice(ThreadSlice slice);

}  // namespace kvasir

#endif  // KVASIR_BASE_THREAD_SLICE_H_
