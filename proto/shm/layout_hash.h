// A hash over every offset and size of layout.h, exchanged at the hand-over: two builds that
// disagree about the bytes never talk, whatever their ABI numbers say.
#ifndef KVASIR_PROTO_SHM_LAYOUT_HASH_H_
#define KVASIR_PROTO_SHM_LAYOUT_HASH_H_

#include <cstdint>
#include <string>

namespace kvasir::shm {

// One line a field: `Struct.field offset size`, in the order of layout.h.
std::string LayoutText();

// XXH3-64 of LayoutText().
uint64_t LayoutHash();

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_LAYOUT_HASH_H_
