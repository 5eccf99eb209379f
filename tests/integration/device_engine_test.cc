// Engines in processes of their own decode over the compact blocks of a device, and get what a full
// cache under a mask gives. On a GPU their attention is a kernel over the addresses of the views.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/device/devices_under_test.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/device_config.h"

namespace kvasir::testing {
namespace {

class DeviceEngineTest : public DaemonFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    std::string device = "host";
    if (GetParam() == std::string("cuda")) {
      const auto opened = device::testing::OpenForTest("cuda");
      if (!opened.ok()) GTEST_SKIP() << opened.status();
      device = (*opened)->facts().uuid;
    }
    StartServer(WithDevicePool(MakeConfig(), device));
  }
  void TearDown() override {
    if (server_ != nullptr) ExpectNothingCharged();
  }
};

TEST_P(DeviceEngineTest, DecodingOverCompactBlocksIsThatOverAFullCacheUnderAMask) {
  const auto start = [&](const std::string& retention) {
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{SiblingProgram(KVASIR_DEVICE_ENGINE),
                                 folder_.path() + "/control.sock", folder_.path() + "/data.sock",
                                 GetParam(), "gpu0", "260", retention},
        std::vector<std::string>());
  };
  const std::unique_ptr<ChildProcess> engines[] = {
      // at once
      start("streamingllm:start_size=4,recent_size=40,positions=original"),
      start("sepllm:form=static,init_cache_size=4,local_size=40")};
  for (const auto& engine : engines) EXPECT_EQ(engine->Wait(), 0) << engine->ReadErrors();
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceEngineTest, ::testing::Values(KVASIR_TEST_DEVICES));

}  // namespace
}  // namespace kvasir::testing
