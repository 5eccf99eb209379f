// A small model's groups: host memory that is registered, and device planes that they belong in.
#ifndef KVASIR_TESTS_DEVICE_OFFLOAD_FIXTURE_H_
#define KVASIR_TESTS_DEVICE_OFFLOAD_FIXTURE_H_

#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "device/offload/offload_engine.h"
#include "tests/device/devices_under_test.h"

namespace kvasir::device::testing {

// Layers of different sizes, groups of `blocks` on both sides; the trailer has a plane as well.
class OffloadWorld {
 public:
  static constexpr uint32_t kBlocks = 16;

  explicit OffloadWorld(Device& device)
      : geometry_(shm::MakeGroupGeometry(
            std::vector<shm::LayerRowBytes>{{64, 64}, {128, 96}, {32, 0}}, 16)),
        host_(device, geometry_.bytes * kBlocks),
        words_(device, kPageBytes) {
    std::vector<DevicePlane> planes;
    for (uint64_t part = 0; part <= geometry_.k_off.size(); ++part) {
      constexpr uint64_t kStride = 8192;  // wider than any part: gaps stay as they are
      auto extent = device.CreateExtent(kStride * kBlocks, part + 1);
      KVASIR_CHECK(extent.ok(), "{}", extent.status().ToString());
      planes.push_back({(*extent)->address(), kStride, kBlocks});
      extents_.push_back(*std::move(extent));
    }
    auto layout = GroupLayout::Create(geometry_, planes);
    KVASIR_CHECK(layout.ok(), "{}", layout.status().ToString());
    layout_.emplace(*std::move(layout));
  }

  const GroupLayout& layout() const { return *layout_; }
  std::byte* group(uint32_t index) const { return host_.data() + index * geometry_.bytes; }
  uint64_t group_bytes() const { return geometry_.bytes; }
  DeviceWord& word() const { return words_.word(0); }
  void Fill(uint32_t index, uint64_t seed) const {
    FillPattern(group(index), geometry_.bytes, seed);
  }
  bool Has(uint32_t index, uint64_t seed) const {
    return HasPattern(group(index), geometry_.bytes, seed);
  }

 private:
  const shm::GroupGeometry geometry_;
  const SharedPages host_, words_;
  std::vector<std::unique_ptr<DeviceExtent>> extents_;
  std::optional<GroupLayout> layout_;
};

}  // namespace kvasir::device::testing

#endif  // KVASIR_TESTS_DEVICE_OFFLOAD_FIXTURE_H_
