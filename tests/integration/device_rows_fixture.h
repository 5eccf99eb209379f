// A daemon with a pool on a device, and an engine's side of it: the device that KVASIR_TEST_DEVICE
// names, "host" or "cuda". On host memory that stands in for one, who follows an address of it
// ends.
#ifndef KVASIR_TESTS_INTEGRATION_DEVICE_ROWS_FIXTURE_H_
#define KVASIR_TESTS_INTEGRATION_DEVICE_ROWS_FIXTURE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/device/devices_under_test.h"
#include "tests/integration/row_copies.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/device_config.h"

namespace kvasir::testing {

inline constexpr uint32_t kLayers = 3;

using Seen = std::vector<std::vector<std::vector<SeenRow>>>;  // [row][layer]

inline bool OnHost() { return std::string(KVASIR_TEST_DEVICE) == "host"; }

// The device of the daemon's pool "gpu0", as an engine opens it.
inline absl::StatusOr<std::unique_ptr<device::Device>> OpenDevice() {
  if (!OnHost()) return device::testing::OpenForTest("cuda");
  device::HostDeviceOptions options;
  options.total_bytes = kDevicePoolBytes;
  options.uuid = "host-gpu0";
  options.hides_extents = true;
  return device::HostDevice::Create(options);
}
// As the daemon's configuration names it.
inline std::string NameOf(const device::Device& device) {
  return OnHost() ? "host" : device.facts().uuid;
}

class DeviceRowsFixture : public DaemonFixture {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<device::Device>> device = OpenDevice();
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
    copies_ = std::make_unique<RowCopies>(*device_);
    StartServer(ConfigWithPool());
  }

  void TearDown() override {
    if (server_ == nullptr) return;
    ExpectNothingCharged();
    EXPECT_EQ(Pool().charged_bytes, 0U);
  }

  Config ConfigWithPool() const { return WithDevicePool(MakeConfig(), NameOf(*device_)); }

  std::unique_ptr<Session> ConnectWith(device::Device* device) {
    ConnectOptions options = MakeConnectOptions();
    if (device != nullptr) options.devices = {device};
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
    EXPECT_TRUE(session.ok()) << MessageOf(session.status());
    return *std::move(session);
  }

  static ModelSpec DeviceSpec(ModelSpec spec = TinySpec(kLayers)) {
    for (LayerSpec& layer : spec.layers) layer.query_heads = 4;
    spec.pool = "gpu0";
    return spec;
  }

  DevicePoolSnapshot Pool() { return server_->Snapshot().device_pools.at(0); }

  // Rows [sequence.rows(), end) with these ids; `on_device`: where they lie. What the queries see
  // is added to `seen`, [row][layer].
  void Extend(Sequence& sequence, const std::vector<uint32_t>& ids, uint64_t end, bool on_device,
              uint32_t batch, Seen* seen) {
    const ModelSpec spec = TinySpec(kLayers);
    seen->resize(sequence.rows());
    while (sequence.rows() < end) {
      const uint64_t row = sequence.rows();
      const absl::StatusOr<StepView> step =
          sequence.Begin(static_cast<uint32_t>(std::min<uint64_t>(batch, end - row)));
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      if (on_device) {
        copies_->Write(*step, spec);
      } else {
        WriteTestRows(*step, spec);
      }
      seen->resize(row + step->count, std::vector<std::vector<SeenRow>>(kLayers));
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        const LayerView& there = step->layers[layer];
        const LayerView view = on_device ? copies_->Fetch(there) : there;
        for (const KeptRunView& run : view.kept) kept_rows_ += on_device ? run.rows : 0;
        for (uint64_t at = row; at < row + step->count; ++at) {
          (*seen)[at][layer] = SeenBy(view, at);
        }
      }
      const absl::Status committed = sequence.Commit(std::span(ids).subspan(row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
  }

  std::unique_ptr<device::Device> device_;
  std::unique_ptr<RowCopies> copies_;  // of `device_`
  uint64_t kept_rows_ = 0;             // that were seen on the device
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_DEVICE_ROWS_FIXTURE_H_
