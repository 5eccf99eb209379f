// What a step's queries need and what the store holds for them, counted from the views.
#ifndef KVASIR_ENGINE_HELD_BYTES_H_
#define KVASIR_ENGINE_HELD_BYTES_H_

#include <cstdint>

#include "client/view.h"

namespace kvasir::engine {

// Bytes of K and V that the query of `row` reads over all layers: rows as written in full, rows in
// records their share of the record. REQUIRES: step.row <= row < step.row + step.count.
// Cost: O(runs and records).
double VisibleBytes(const StepView& step, uint32_t kv_heads, uint64_t row);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_HELD_BYTES_H_
