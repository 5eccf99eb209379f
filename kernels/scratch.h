// Per-thread working memory of the kernels: it grows to the largest request and is then reused, so
// a steady load allocates nothing. Freed when the thread ends.
#ifndef KVASIR_KERNELS_SCRATCH_H_
#define KVASIR_KERNELS_SCRATCH_H_

#include <cstddef>

namespace kvasir::kernels {

// At least `floats` floats, aligned to a cache line, contents undefined. The pointer is valid until
// the thread asks again, so a kernel asks once a call. Ends the process when memory is out.
float* Scratch(size_t floats);

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_SCRATCH_H_
