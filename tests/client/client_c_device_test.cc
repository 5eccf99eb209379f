// The C ABI on a device: an engine in C whose rows lie in the daemon's pool.
#include <gtest/gtest.h>

#include "device/cuda/cuda_devices.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/device_config.h"

namespace kvasir::testing {
namespace {

class ClientCDeviceTest : public DaemonFixture {
 protected:
  void SetUp() override { StartServer(WithDevicePool(MakeConfig(), "host")); }
};

TEST_F(ClientCDeviceTest, AnEngineInCKeepsItsRowsOnADevice) {
  ChildProcess engine({SiblingProgram("c_device_engine"), folder_.path() + "/control.sock",
                       folder_.path() + "/data.sock", "host-gpu0", device::CudaRuntimeVersion()},
                      {});
  const std::string said = engine.ReadErrors();
  EXPECT_EQ(engine.ReadLine().value_or(""), "ok") << said;
  EXPECT_EQ(engine.Wait(), 0) << said;
  ExpectNothingCharged();
  EXPECT_EQ(server_->Snapshot().device_pools.at(0).charged_bytes, 0U);
}

}  // namespace
}  // namespace kvasir::testing
