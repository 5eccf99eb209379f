// What the parts of the fault layer share. The layer is a library that a process loads before libc
// (LD_PRELOAD): its functions stand before libc's of the same name and do what the board says. It
// is built without sanitizers, and nothing in it may allocate or throw.
#ifndef KVASIR_TESTS_FAULTS_FAULT_LAYER_H_
#define KVASIR_TESTS_FAULTS_FAULT_LAYER_H_

#include "tests/faults/fault_board.h"

#include <dlfcn.h>

namespace kvasir::testing {

// Null before the layer is set up, and without a board.
FaultBoard* BoardOfLayer();

// The function that the layer's one of this name stands before.
template <typename Function>
Function* NextOf(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

// What becomes of a call on `fd`: 0, an errno or kShortTransfer. Either place may be struck, by
// what the file is.
int StrikeAt(int fd, FaultPlace of_segment, FaultPlace of_index);

// Returns when reads of segments are not held, if `fd` is one.
void HoldRead(int fd);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_FAULTS_FAULT_LAYER_H_
