// SIGKILL of engines and of the daemon while rows lie in the memory of a device: the memory comes
// back with its last holder, and who lives on reads on.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/device_config.h"
#include "tests/support/environment.h"
#include "tests/support/eventually.h"

namespace kvasir::testing {
namespace {

// Mappings of device memory in this process.
int MappedDeviceExtents() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) {
    count += line.find("memfd:kvasir-device-") != std::string::npos ? 1 : 0;
  }
  return count;
}

class DeviceKillTest : public DaemonFixture {
 protected:
  void SetUp() override { ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0); }

  Config ConfigWithPool() const { return WithDevicePool(MakeConfig(), "host"); }
};

TEST_F(DeviceKillTest, MemoryComesBackFromAnEngineThatIsKilled) {
  StartServer(ConfigWithPool());
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t rounds = FromEnvironment("KVASIR_ROUNDS", 12);
  for (uint64_t i = 0; i < rounds; ++i) {
    SCOPED_TRACE(i);
    const uint64_t seed = random();
    ChildProcess engine({SiblingProgram("test_engine"), folder_.path() + "/control.sock",
                         folder_.path() + "/data.sock", std::to_string(seed), "-", "device"},
                        {});
    const uint64_t things = random() % 3 == 0 ? random() % 6 : random() % 300;
    for (uint64_t thing = 0; thing < things; ++thing) {
      if (!engine.ReadByte()) FAIL() << "the engine ended by itself: " << engine.ReadErrors();
    }
    engine.Signal(SIGKILL);
    ASSERT_EQ(engine.Wait(), -SIGKILL);
    ASSERT_TRUE(Eventually([&] {
      const StatsSnapshot snapshot = server_->Snapshot();
      const DevicePoolSnapshot& pool = snapshot.device_pools.at(0);
      return snapshot.tenants.at(0).sessions == 0 && pool.charged_bytes == 0 &&
             pool.device_free_bytes == pool.device_total_bytes;
    })) << "after "
        << things << " things, seed " << seed;
    MutexLock lock(server_->shared_for_test().mutex);
    const absl::Status conserved = server_->shared_for_test().core.CheckConservation();
    ASSERT_TRUE(conserved.ok()) << MessageOf(conserved);
  }
}

TEST_F(DeviceKillTest, AnEngineReadsOnWhenTheDaemonIsKilledAndTheMemoryGoesWithIt) {
  DaemonProcess daemon(folder_.path());
  ASSERT_TRUE(daemon.Start(ConfigWithPool()));
  device::HostDeviceOptions options;
  options.total_bytes = kDevicePoolBytes;
  options.uuid = "host-gpu0";
  absl::StatusOr<std::unique_ptr<device::HostDevice>> device = device::HostDevice::Create(options);
  ASSERT_TRUE(device.ok()) << MessageOf(device.status());
  ConnectOptions connect = MakeConnectOptions();
  connect.devices = {device->get()};
  ModelSpec spec = TinySpec(2);
  spec.pool = "gpu0";
  {
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(connect);
    ASSERT_TRUE(session.ok()) << MessageOf(session.status());
    const absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = (*session)->OpenSequence(
        {*model, "streamingllm:start_size=4,recent_size=37,positions=original", 0, ""});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    uint64_t row = 0;
    std::vector<uint64_t> seen;
    for (; row < 200; ++row) {
      const absl::StatusOr<StepView> step = sequence->Begin(1);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, spec);
      ASSERT_TRUE(sequence->Commit(std::vector<uint32_t>{3}).ok());
    }
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    WriteTestRows(*step, spec);
    const std::vector<uint64_t> before = VisibleRows(step->layers[1], row, 1, spec);
    EXPECT_EQ(before.size(), 41U);
    EXPECT_GT(MappedDeviceExtents(), 0);
    daemon.process().Signal(SIGKILL);
    ASSERT_EQ(daemon.process().Wait(), -SIGKILL);
    EXPECT_EQ(VisibleRows(step->layers[1], row, 1, spec), before);
    const absl::StatusOr<Sequence> another = (*session)->OpenSequence({*model, "full", 0, ""});
    EXPECT_EQ(another.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_GT(MappedDeviceExtents(), 0);
  }
  EXPECT_EQ(MappedDeviceExtents(), 0);  // it was the last holder

  ASSERT_TRUE(daemon.Start(ConfigWithPool()));
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(connect);
  ASSERT_TRUE(session.ok()) << MessageOf(session.status());
  EXPECT_TRUE((*session)->RegisterModel(spec).ok());
}

}  // namespace
}  // namespace kvasir::testing
