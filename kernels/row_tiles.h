// Rows of many runs as tiles of up to 64 row pointers, so that short runs cost no more than long
// ones.
#ifndef KVASIR_KERNELS_ROW_TILES_H_
#define KVASIR_KERNELS_ROW_TILES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/scores.h"

namespace kvasir::kernels {

// Half a level-1 cache holds keys and values of one kv head's tile; scores of a tile are rescaled
// once.
constexpr size_t kTileRows = 64;
// The most lanes a kernel scores at once.
constexpr size_t kPadRows = 16;

struct RowTile {
  const std::byte* k[kTileRows];
  const std::byte* v[kTileRows];
  size_t rows = 0;
};

// Hands out the rows of the runs in tiles; a tile never mixes query sets.
class RowTileSource {
 public:
  explicit RowTileSource(std::span<const AttentionRun> runs) : runs_(runs) {}

  // Fills `tile`; its rows are 0 at the end. Pointers behind the last row repeat it, up to a
  // multiple of kPadRows, so that scoring needs no tail.
  void Next(RowTile& tile, uint32_t& query_set) {
    tile.rows = 0;
    while (tile.rows < kTileRows && run_ < runs_.size()) {
      const AttentionRun& run = runs_[run_];
      if (row_ == run.rows) {
        ++run_;
        row_ = 0;
        continue;
      }
      if (tile.rows == 0) {
        query_set = run.query_set;
      } else if (query_set != run.query_set) {
        break;
      }
      const size_t take = std::min<size_t>(kTileRows - tile.rows, run.rows - row_);
      for (size_t i = 0; i < take; ++i) {
        tile.k[tile.rows + i] = run.k + size_t{row_ + i} * run.k_stride;
        tile.v[tile.rows + i] = run.v + size_t{row_ + i} * run.v_stride;
      }
      tile.rows += take;
      row_ += take;
    }
    if (tile.rows > 0) {
      for (size_t row = tile.rows; row % kPadRows != 0; ++row) {
        tile.k[row] = tile.k[tile.rows - 1];
        tile.v[row] = tile.v[tile.rows - 1];
      }
    }
  }

 private:
  std::span<const AttentionRun> runs_;
  size_t run_ = 0;
  size_t row_ = 0;
};

struct KeyTile {
  const std::byte* k[kTileRows];
  size_t rows = 0;
};

// The same for keys alone.
class KeyTileSource {
 public:
  explicit KeyTileSource(std::span<const KeyRun> runs) : runs_(runs) {}

  void Next(KeyTile& tile) {
    tile.rows = 0;
    while (tile.rows < kTileRows && run_ < runs_.size()) {
      const KeyRun& run = runs_[run_];
      if (row_ == run.rows) {
        ++run_;
        row_ = 0;
        continue;
      }
      const size_t take = std::min<size_t>(kTileRows - tile.rows, run.rows - row_);
      for (size_t i = 0; i < take; ++i) {
        tile.k[tile.rows + i] = run.k + size_t{row_ + i} * run.stride;
      }
      tile.rows += take;
      row_ += take;
    }
    for (size_t row = tile.rows; row > 0 && row % kPadRows != 0; ++row) {
      tile.k[row] = tile.k[tile.rows - 1];
    }
  }

 private:
  std::span<const KeyRun> runs_;
  size_t run_ = 0;
  size_t row_ = 0;
};

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ROW_TILES_H_
