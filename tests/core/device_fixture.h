// A core with a pool of a device, whose addresses nobody can follow, and engines on it.
#ifndef KVASIR_TESTS_CORE_DEVICE_FIXTURE_H_
#define KVASIR_TESTS_CORE_DEVICE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/device_memory.h"
#include "base/bytes.h"
#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

// One of each kind of table that rows on a device may have.
inline constexpr const char* kDeviceRetentions[] = {
    "full",
    "window:size=40",
    "streamingllm:start_size=4,recent_size=37",
    "sepllm:form=static,init_cache_size=3,local_size=40",
    "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=60",
    "sinks:size=4|separators|window:size=30"};

class DeviceCoreTest : public PrefixCoreTest {
 protected:
  static constexpr uint64_t kUnit = 64 * kKiB;  // the device's granularity: 16 groups
  static constexpr uint64_t kPool = 64 * kUnit;

  DeviceCoreTest() { StartWith(kPool, kPool); }
  ~DeviceCoreTest() override { core_.reset(); }

  void StartWith(uint64_t pool_bytes, uint64_t limit_bytes) {
    core_.reset();
    engines_.clear();
    device::HostDeviceOptions options;
    options.total_bytes = pool_bytes;
    options.granularity_bytes = kUnit;
    options.hides_extents = true;
    auto device = device::HostDevice::Create(options);
    ASSERT_TRUE(device.ok()) << MessageOf(device.status());
    device_ = device->get();
    auto memory = DeviceMemory::Create(*std::move(device), {"gpu0", pool_bytes, kUnit, 2 * kUnit});
    ASSERT_TRUE(memory.ok()) << MessageOf(memory.status());
    memory_ = *std::move(memory);
    limit_bytes_ = limit_bytes;
    Start(host_limit_);
  }

  std::unique_ptr<HostPool> MakePool() override { return MakeTestPool(32 * kMiB); }

  void Configure(CoreConfig& config) override {
    if (memory_ == nullptr) return;  // of the base's constructor
    config.devices = {memory_.get()};
    for (TenantConfig& tenant : config.tenants) tenant.devices = {{"gpu0", 0, limit_bytes_, 1}};
  }

  void TearDown() override {
    ExpectNothingIsLeft();
    for (const TenantReport& tenant : core_->TenantReports()) {
      EXPECT_EQ(tenant.prefixes, 0U) << tenant.name;
      EXPECT_EQ(tenant.devices.at(0).held_bytes, 0U) << tenant.name;
      EXPECT_EQ(tenant.devices.at(0).charged_bytes, 0U) << tenant.name;
    }
    EXPECT_EQ(memory_->pool().counts().charged_bytes, 0U);
  }

  // An engine with the model in the device's memory, whose rows depend on all tokens before them.
  FakeEngine& ConnectOn(uint32_t uid, uint32_t* model, const std::string& pool = "gpu0") {
    engines_.emplace_back(uid, std::make_unique<FakeEngine>(*core_, limits_, uid));
    FakeEngine& engine = *engines_.back().second;
    engine.rows_by_prefix = true;
    const absl::StatusOr<uint32_t> registered = engine.RegisterModel(RotatedModel(), pool);
    EXPECT_TRUE(registered.ok()) << MessageOf(registered.status());
    if (registered.ok()) *model = *registered;
    return engine;
  }

  DeviceReport OnDevice(size_t tenant = 0) { return core_->TenantReports()[tenant].devices.at(0); }

  // What the query of the last row sees, in every layer.
  static std::vector<std::map<uint64_t, std::string>> SeenAtEnd(FakeEngine& engine,
                                                                FakeEngine::Stream& stream) {
    std::vector<std::map<uint64_t, std::string>> seen;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      seen.push_back(engine.Seen(stream, stream.rows - 1, layer));
    }
    return seen;
  }

  device::HostDevice* device_ = nullptr;  // of `memory_`
  std::unique_ptr<DeviceMemory> memory_;
  uint64_t limit_bytes_ = 0;
  uint64_t host_limit_ = 8 * kMiB;  // of each tenant's host memory
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_DEVICE_FIXTURE_H_
