// Budgets of a device and its statistics, as an operator has them: kvasirctl, SIGHUP, /metrics.
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/device_config.h"
#include "tests/support/eventually.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceAdminTest : public DaemonFixture {
 protected:
  void SetUp() override { ASSERT_TRUE(daemon_.Start(ConfigWithPool(32 * kMiB))); }

  Config ConfigWithPool(uint64_t limit_bytes) const {
    Config config = MakeConfig();
    config.admin.uids = {::geteuid()};
    return WithDevicePool(config, "host", limit_bytes);
  }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {SiblingProgram("kvasirctl"), "--socket=" + folder_.path() + "/control.sock"});
    ChildProcess process(arguments, {});
    out_.clear();
    while (const std::optional<std::string> line = process.ReadLine()) out_ += *line + "\n";
    out_ += process.ReadErrors();
    return process.Wait();
  }

  DaemonProcess daemon_{folder_.path()};
  std::string out_;  // of the last run, both streams
};

TEST_F(DeviceAdminTest, StatsShowPoolsAndWhatTenantsHaveOfThem) {
  ASSERT_EQ(Run({"stats"}), 0) << out_;
  EXPECT_THAT(out_, AllOf(HasSubstr("GRANULARITY"), HasSubstr("gpu0"),
                          HasSubstr("host memory of gpu0"), HasSubstr("32.0 MiB")));
  ASSERT_EQ(Run({"stats", "--output=json"}), 0) << out_;
  EXPECT_THAT(out_,
              AllOf(HasSubstr("\"granularity_bytes\": \"2097152\""),
                    HasSubstr("\"device_uuid\": \"host-gpu0\""), HasSubstr("\"lost\": \"\"")));
}

TEST_F(DeviceAdminTest, ABudgetOfADeviceIsSetAlone) {
  ASSERT_EQ(Run({"tenants", "set", "test", "--pool=gpu0", "--reserved-bytes=2MiB",
                 "--limit-bytes=4MiB", "--weight=3"}),
            0)
      << out_;
  EXPECT_THAT(out_, AllOf(HasSubstr("test on gpu0"), HasSubstr("weight 3"), HasSubstr("4.0 MiB")));
  ASSERT_EQ(Run({"tenants", "--output=json"}), 0) << out_;
  EXPECT_THAT(out_,
              AllOf(HasSubstr("\"limit_bytes\": \"4194304\""),
                    HasSubstr("\"limit_bytes\": \"67108864\"")));  // the host pool's is as it was
  EXPECT_EQ(Run({"tenants", "set", "test", "--pool=gpu1", "--weight=3"}), 1);
  EXPECT_THAT(out_, HasSubstr("unknown pool of a device"));
  EXPECT_EQ(Run({"tenants", "set", "test", "--pool=gpu0", "--limit-bytes=64MiB"}), 1);
  EXPECT_THAT(out_, HasSubstr("pool_bytes=33554432"));
  EXPECT_EQ(Run({"tenants", "set", "test", "--pool=gpu0", "--reserved-bytes=8MiB"}), 1);
  EXPECT_THAT(out_, HasSubstr("reserved_bytes <= limit_bytes"));
}

TEST_F(DeviceAdminTest, AChangedFileIsTakenOverWithoutARestart) {
  std::ofstream(folder_.path() + "/kvasird.toml") << EffectiveConfigToml(ConfigWithPool(8 * kMiB));
  daemon_.process().Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] {
    return Run({"tenants", "--output=json"}) == 0 &&
           out_.find("\"limit_bytes\": \"8388608\"") != std::string::npos;
  })) << out_;
}

}  // namespace
}  // namespace kvasir::testing
