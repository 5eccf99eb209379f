// Groups that are filled on a device: byte for byte those of host memory.
#include "daemon/core/device_copy.h"

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/core/account.h"
#include "daemon/core/device_account.h"
#include "device/host/host_device.h"
#include "kernels/row_convert.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core {
namespace {

using kernels::RopePairing;
using kernels::RopeShape;
using kernels::RowType;

constexpr uint32_t kSlots = 16, kRecentSlots = 32;

// Layers that are turned alike, one of another theta, one of other heads, one without V.
std::vector<RopeShape> Layers(RowType type, RopePairing pairing) {
  return {{type, pairing, 2, 32, 32, 1e4},
          {type, pairing, 2, 32, 32, 1e4},
          {type, pairing, 2, 32, 32, 5e5},
          {type, pairing, 2, 32, 16, 1e4},
          {type, pairing, 1, 128, 128, 1e4}};
}

std::vector<shm::LayerRowBytes> RowBytesOf(const std::vector<RopeShape>& layers) {
  std::vector<shm::LayerRowBytes> bytes;
  for (const RopeShape& layer : layers) {
    const auto row =
        static_cast<uint32_t>(layer.kv_heads * layer.head_dim * kernels::ElementBytes(layer.type));
    bytes.push_back({row, layer.kv_heads == 1 ? 0 : row});
  }
  return bytes;
}

class DeviceCopyTest : public ::testing::Test {
 protected:
  DeviceCopyTest() {
    device::HostDeviceOptions options;
    options.total_bytes = 8 * kMiB;
    options.granularity_bytes = 64 * kKiB;
    options.hides_extents = true;  // who follows an address of the device ends
    auto opened = device::HostDevice::Create(options);
    device_ = opened->get();
    memory_ = *DeviceMemory::Create(*std::move(opened), {"gpu0", 8 * kMiB, kMiB, kMiB});
    on_device_ = std::make_unique<DeviceAccount>(0, DeviceBudget{"gpu0", 0, 8 * kMiB, 1}, *memory_,
                                                 shares_, account_);
    kept_ = std::make_unique<DeviceAllocators>(ExtentUse::kKept, *on_device_);
    shares_.Add(*on_device_);
  }

  // A group in either memory, of the same bytes where `values` are given.
  struct Both {
    std::shared_ptr<KeptGroup> here, there;
  };
  Both Make(const shm::GroupGeometry& geometry, GroupAllocator& host,
            const std::vector<std::byte>& values) {
    GroupAllocator& device = kept_->For(geometry);
    Both both{std::make_shared<KeptGroup>(*host.Allocate(), geometry, host),
              std::make_shared<KeptGroup>(*device.Allocate(), geometry, device)};
    if (!values.empty()) {
      std::memcpy(both.here->group().data(), values.data(), values.size());
      EXPECT_TRUE(memory_->Write(values, both.there->group().data()).ok());
    }
    return both;
  }

  static void ExpectSame(const Both& both, DeviceMemory& memory) {
    const shm::GroupGeometry& geometry = both.here->geometry();
    std::vector<std::byte> there(geometry.pos_off);
    ASSERT_TRUE(memory.Read(both.there->group().data(), there).ok());
    for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
      const auto same = [&](uint64_t at, uint64_t bytes) {
        return std::memcmp(there.data() + at, both.here->group().data() + at, bytes) == 0;
      };
      const auto [k, v] = geometry.row_bytes[layer];
      EXPECT_TRUE(same(geometry.k_off[layer], uint64_t{k} * geometry.slots)) << "K " << layer;
      EXPECT_TRUE(same(geometry.v_off[layer], uint64_t{v} * geometry.slots)) << "V " << layer;
    }
    EXPECT_EQ(0, std::memcmp(both.there->group().trailer(geometry.pos_off),
                             both.here->group().data() + geometry.pos_off,
                             geometry.bytes - geometry.pos_off));
  }

  std::unique_ptr<HostPool> pool_ = testing::MakeTestPool(16 * kMiB);
  Account account_{"kept", {0, 16 * kMiB, 1}, *pool_, nullptr};
  std::unique_ptr<DeviceMemory> memory_;
  device::HostDevice* device_ = nullptr;
  Instant now_ = Instant() + std::chrono::milliseconds(1);
  DeviceShares shares_{8 * kMiB, now_};
  std::unique_ptr<DeviceAccount> on_device_;
  std::unique_ptr<DeviceAllocators> kept_;
};

TEST_F(DeviceCopyTest, MakesTheBytesOfHostMemory) {
  std::mt19937 random(static_cast<uint32_t>(testing::TestSeed(7)));
  std::normal_distribution<float> normal;
  for (const RowType type : {RowType::kF16, RowType::kBF16}) {
    for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
      for (const bool rotate : {true, false}) {
        const LaneRope rope{rotate, false, Layers(type, pairing)};
        const auto bytes = RowBytesOf(rope.layers);
        const shm::GroupGeometry recent = shm::MakeGroupGeometry(bytes, kRecentSlots);
        const shm::GroupGeometry kept = shm::MakeGroupGeometry(bytes, kSlots);
        GroupAllocator recent_host({recent.bytes, ExtentUse::kKept, kMiB, kMiB}, account_);
        GroupAllocator kept_host({kept.bytes, ExtentUse::kKept, kMiB, kMiB}, account_);
        std::vector<Both> sources;
        for (int i = 0; i < 2; ++i) {
          std::vector<std::byte> values(recent.pos_off);
          for (uint64_t at = 0; at < values.size() / 2; ++at) {
            kernels::StoreElement(type, values.data(), at, normal(random));
          }
          sources.push_back(Make(recent, recent_host, values));
        }
        for (int round = 0; round < 8; ++round) {
          const Both made = Make(kept, kept_host, {});
          GroupFill here{made.here, {}}, there{made.there, {}};
          for (uint32_t i = 0; i < kSlots; ++i) {
            const Both& source = sources[random() % 2];
            const auto slot = static_cast<uint32_t>(random() % kRecentSlots);
            // In the last round nothing is turned, in the others some rows are not.
            const int64_t by = round == 7 || i % 5 == 0 ? 0 : -static_cast<int64_t>(random() % 9);
            here.sources.push_back({source.here->group().data(), &recent, slot, by});
            there.sources.push_back({source.there->group().data(), &recent, slot, by});
            made.here->slots.push_back({i, i, static_cast<TokenId>(random() % 99)});
          }
          made.there->slots = made.here->slots;
          FillGroup(here, rope);
          const absl::Status filled = FillOnDevice(there, rope);
          ASSERT_TRUE(filled.ok()) << MessageOf(filled);
          ExpectSame(made, *memory_);
          if (HasFailure()) return;
        }
      }
    }
  }
}

// Nothing comes to the host: one call of the device, also where keys are turned.
TEST_F(DeviceCopyTest, IsOneCallOfTheDevice) {
  const LaneRope rope{true, false, Layers(RowType::kF16, RopePairing::kHalfSplit)};
  const shm::GroupGeometry geometry = shm::MakeGroupGeometry(RowBytesOf(rope.layers), kSlots);
  GroupAllocator host({geometry.bytes, ExtentUse::kKept, kMiB, kMiB}, account_);
  const Both from = Make(geometry, host, {}), to = Make(geometry, host, {});
  GroupFill fill{to.there, {}};
  for (uint32_t i = 0; i < kSlots; ++i) {
    fill.sources.push_back({from.there->group().data(), &geometry, i, int64_t{i} - 4});
    to.there->slots.push_back({i, i, 1});
  }
  device_->FailCopiesForTest(1, 1);
  EXPECT_TRUE(FillOnDevice(fill, rope).ok());
  const absl::Status refused = FillOnDevice(fill, rope);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal) << MessageOf(refused);
}

}  // namespace
}  // namespace kvasir::core
