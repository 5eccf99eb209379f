// What the parts of the conformance suite share: one device of the kind under test.
#ifndef KVASIR_TESTS_DEVICE_DEVICE_FIXTURE_H_
#define KVASIR_TESTS_DEVICE_DEVICE_FIXTURE_H_

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/device/devices_under_test.h"

namespace kvasir::device::testing {

class DeviceTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenForTest(GetParam());
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
    granularity_ = device_->facts().granularity_bytes;
    stream_ = MakeStream();
  }

  std::unique_ptr<DeviceStream> MakeStream() {
    auto stream = device_->MakeStream(StreamPriority::kNormal);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *std::move(stream) : nullptr;
  }
  std::unique_ptr<DeviceExtent> Create(uint64_t bytes, uint64_t id = 1) {
    auto extent = device_->CreateExtent(bytes, id);
    EXPECT_TRUE(extent.ok()) << extent.status();
    return extent.ok() ? *std::move(extent) : nullptr;
  }
  void CopyNow(std::byte* dst, const std::byte* src, uint64_t bytes) {
    const CopyPiece piece{dst, src, bytes};
    EXPECT_TRUE(stream_->Copy({&piece, 1}).ok());
    EXPECT_TRUE(stream_->Synchronize().ok());
  }

  std::unique_ptr<Device> device_;
  uint64_t granularity_ = 0;
  std::unique_ptr<DeviceStream> stream_;
};

}  // namespace kvasir::device::testing

#endif  // KVASIR_TESTS_DEVICE_DEVICE_FIXTURE_H_
