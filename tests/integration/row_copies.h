// Rows of a device as a test has them: by copies of a stream of its own, byte by byte.
#ifndef KVASIR_TESTS_INTEGRATION_ROW_COPIES_H_
#define KVASIR_TESTS_INTEGRATION_ROW_COPIES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/view.h"
#include "tests/device/devices_under_test.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {

// Reads and writes rows as an engine that has no kernels would: by copies of its own stream.
class RowCopies {
 public:
  explicit RowCopies(device::Device& device)
      : pages_(device, kBytes), stream_(*device.MakeStream(device::StreamPriority::kNormal)) {}

  // The layer as the processor may read it; valid until the next call.
  LayerView Fetch(const LayerView& view) {
    std::vector<device::CopyPiece> pieces;
    uint64_t at = 0;
    const auto fetch = [&](const std::byte* from, uint64_t bytes) {
      std::byte* const to = pages_.data() + at;
      at += RoundUp(bytes, 64);
      EXPECT_LE(at, kBytes);
      if (bytes > 0) pieces.push_back({to, from, bytes});
      return to;
    };
    kept_.assign(view.kept.begin(), view.kept.end());
    for (KeptRunView& run : kept_) {
      run.k = fetch(run.k, uint64_t{run.rows} * run.k_stride);
      run.v = fetch(run.v, uint64_t{run.rows} * run.v_stride);
    }
    recent_.assign(view.recent.begin(), view.recent.end());
    for (RecentBlockView& block : recent_) {
      block.k = fetch(block.k, uint64_t{view.slots_per_block} * view.k_stride);
      block.v = fetch(block.v, uint64_t{view.slots_per_block} * view.v_stride);
    }
    Copy(pieces);
    LayerView here = view;
    here.kept = kept_;
    here.recent = recent_;
    return here;
  }

  // K and V of one row, as they lie.
  void PutRow(const LayerView& view, uint64_t row, const void* k, const void* v) {
    std::memcpy(pages_.data(), k, view.k_stride);
    std::memcpy(pages_.data() + view.k_stride, v, view.v_stride);
    Copy({{view.KeyOf(row), pages_.data(), view.k_stride},
          {view.ValueOf(row), pages_.data() + view.k_stride, view.v_stride}});
  }

  // What WriteTestRows() writes.
  void Write(const StepView& step, const ModelSpec& spec) {
    for (uint32_t layer = 0; layer < step.layers.size(); ++layer) {
      const LayerView& view = step.layers[layer];
      std::vector<device::CopyPiece> pieces;
      std::byte* at = pages_.data();
      for (uint64_t row = step.row; row < step.row + step.count; ++row) {
        for (uint32_t plane = 0; plane < 2; ++plane) {
          const uint32_t elements =
              spec.layers[layer].kv_heads *
              (plane == 0 ? spec.layers[layer].k_head_dim : spec.layers[layer].v_head_dim);
          pieces.push_back({plane == 0 ? view.KeyOf(row) : view.ValueOf(row), at, 2 * elements});
          for (uint32_t e = 0; e < elements; ++e, at += 2) {
            const uint16_t value = TestElement(row, layer, plane, e);
            std::memcpy(at, &value, 2);
          }
        }
      }
      Copy(pieces);
    }
  }

 private:
  static constexpr uint64_t kBytes = 2 * kMiB;

  void Copy(const std::vector<device::CopyPiece>& pieces) {
    const absl::Status copied = stream_->Copy(pieces);
    ASSERT_TRUE(copied.ok()) << MessageOf(copied);
    ASSERT_TRUE(stream_->Synchronize().ok());
  }

  device::testing::SharedPages pages_;
  std::unique_ptr<device::DeviceStream> stream_;  // ends first
  std::vector<KeptRunView> kept_;
  std::vector<RecentBlockView> recent_;
};

// What the query of `row` sees: rows, ascending, each with its bytes. When a row moves from recent
// to kept makes no difference.
using SeenRow = std::tuple<uint64_t, size_t, size_t>;
inline std::vector<SeenRow> SeenBy(const LayerView& view, uint64_t row) {
  std::vector<SeenRow> seen;
  const auto hash = [](const std::byte* data, uint64_t bytes) {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(data), bytes});
  };
  for (const KeptRunView& run : view.kept) {
    for (uint32_t i = 0; i < run.rows; ++i) {
      seen.emplace_back(run.positions[i], hash(run.k + uint64_t{i} * run.k_stride, run.k_stride),
                        hash(run.v + uint64_t{i} * run.v_stride, run.v_stride));
    }
  }
  const auto recent = [&](uint64_t p) {
    seen.emplace_back(p, hash(view.KeyOf(p), view.k_stride), hash(view.ValueOf(p), view.v_stride));
  };
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t p : view.sticky) {
    if (p < low) recent(p);
  }
  for (uint64_t p = low; p <= row; ++p) recent(p);
  std::sort(seen.begin(), seen.end());
  return seen;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_ROW_COPIES_H_
