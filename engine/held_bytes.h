// What a step's queries see, counted from the views. Pure functions.
#ifndef KVASIR_ENGINE_HELD_BYTES_H_
#define KVASIR_ENGINE_HELD_BYTES_H_

#include <cstdint>

#include "client/view.h"

namespace kvasir::engine {

// Keys that the query of `row` sees in a layer, its own included; blocks that a lookup returns are
// not counted. Cost, here and below: O(runs, records and sticky rows).
uint64_t VisibleRows(const LayerView& view, uint64_t row);

// Bytes of K and V of these rows over all layers: of rows as written in full, of coded values their
// code, of rows in records their share of the record.
// REQUIRES: step.row <= row < step.row + step.count.
double VisibleBytes(const StepView& step, uint32_t kv_heads, uint64_t row);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_HELD_BYTES_H_
