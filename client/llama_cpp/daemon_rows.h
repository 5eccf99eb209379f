// Rows of the daemon's sequences, as llama.cpp has them: the same ones in all layers, cell by cell.
#ifndef KVASIR_CLIENT_LLAMA_CPP_DAEMON_ROWS_H_
#define KVASIR_CLIENT_LLAMA_CPP_DAEMON_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/c/kvasir.h"
#include "client/llama_cpp/state_image.h"
#include "client/llama_cpp/state_layout.h"

namespace kvasir::llama_cpp {

// Writes the rows of `tokens` that `to` does not have into it, out of the state of a sequence of
// llama.cpp, and commits them. Errors: KVASIR_FAILED_PRECONDITION where the state has not each of
// these positions once; the daemon's.
kvasir_code CopyRowsTo(kvasir_sequence* to, std::span<const uint32_t> tokens,
                       const StateLayout& layout, StateImage& image, kvasir_error* error);

struct VisibleRows {
  std::vector<int32_t> positions;         // of each cell
  std::vector<std::vector<RowRun>> runs;  // [layer]
};

// What the next row of `from` sees. Valid until its next call. Errors: KVASIR_UNIMPLEMENTED where
// layers or heads see different rows, or rows at positions that are not their own; the daemon's.
kvasir_code FindVisibleRows(kvasir_sequence* from, VisibleRows* visible, kvasir_error* error);

// Into the cells of `layout`, whose positions are those of `visible`.
void WriteRows(const VisibleRows& visible, const StateLayout& layout, StateImage& image);

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_DAEMON_ROWS_H_
