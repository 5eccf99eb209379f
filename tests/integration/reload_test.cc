// SIGHUP: what may change while the daemon runs changes, all or nothing.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "daemon/config.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

class ReloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.server.control_socket = folder_.path() + "/control.sock";
    config_.server.data_socket = folder_.path() + "/data.sock";
    config_.memory.pool_bytes = 64 * kMiB;
    config_.memory.extent_bytes = 4 * kMiB;
    config_.memory.recent_extent_bytes = kMiB;
    config_.memory.ready_bytes = 4 * kMiB;
    config_.memory.lock = Config::Memory::Lock::kOff;
    config_.memory.pressure = Config::Memory::Pressure::kOff;
    config_.admin.uids = {::geteuid()};
    Config::Tenant tenant;
    tenant.name = "a";
    tenant.uids = {::geteuid()};
    tenant.limit_bytes = 32 * kMiB;
    tenant.retention = "full";
    config_.tenants = {tenant};
    ASSERT_TRUE(daemon_.Start(config_));
    admin_ = std::make_unique<RawCalls>(config_.server.control_socket, "");
  }

  void Reload(const Config& config) { ReloadText(EffectiveConfigToml(config)); }
  void ReloadText(const std::string& text) {
    std::ofstream(folder_.path() + "/kvasird.toml") << text;
    daemon_.process().Signal(SIGHUP);
  }
  v1::MemoryCounts Budget() {
    v1::GetStatsResponse stats;
    EXPECT_TRUE(admin_->CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
    EXPECT_EQ(stats.tenants_size(), 1);
    return stats.tenants_size() == 1 ? stats.tenants(0).host() : v1::MemoryCounts();
  }
  bool BecomesWeight(uint32_t weight) {
    for (int i = 0; i < 500; ++i) {
      if (Budget().weight() == weight) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  TemporaryFolder folder_;
  DaemonProcess daemon_{folder_.path()};
  Config config_;
  std::unique_ptr<RawCalls> admin_;
};

TEST_F(ReloadTest, BudgetsChangeAllOrNothing) {
  Config wanted = config_;
  wanted.tenants[0].weight = 3;
  wanted.tenants[0].reserved_bytes = 8 * kMiB;
  wanted.tenants[0].limit_bytes = 48 * kMiB;
  wanted.server.log_level = "debug";
  Reload(wanted);
  ASSERT_TRUE(BecomesWeight(3));
  EXPECT_EQ(Budget().reserved_bytes(), 8 * kMiB);
  EXPECT_EQ(Budget().limit_bytes(), 48 * kMiB);

  // Nothing of what follows changes anything; the last one shows that all were looked at.
  Config refused = wanted;
  refused.tenants[0].weight = 4;
  refused.memory.extent_bytes = 8 * kMiB;
  Reload(refused);
  ReloadText("[memory]\npool_bytes = \"a lot\"\n");
  refused = wanted;
  refused.tenants[0].weight = 5;
  refused.tenants.push_back(refused.tenants[0]);
  refused.tenants[1].name = "b";
  refused.tenants[1].uids = {::geteuid() + 1};
  Reload(refused);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(Budget().weight(), 3U);
  Config last = wanted;
  last.tenants[0].weight = 6;
  Reload(last);
  ASSERT_TRUE(BecomesWeight(6));
  daemon_.process().Signal(SIGTERM);
  const std::string log = daemon_.process().ReadErrors();
  EXPECT_NE(log.find("not reloaded, nothing has changed"), std::string::npos) << log;
}

TEST_F(ReloadTest, KvasirctlSetsBudgetsUntilTheNextReload) {
  v1::SetTenantBudgetRequest request;
  v1::SetTenantBudgetResponse response;
  request.set_tenant("a");
  request.mutable_budget()->set_weight(7);
  ASSERT_TRUE(admin_->CallAdmin(&v1::Admin::Stub::SetTenantBudget, request, &response).ok());
  EXPECT_EQ(response.host().weight(), 7U);
  EXPECT_EQ(response.host().limit_bytes(), 32 * kMiB) << "what is left out stays";
  EXPECT_EQ(response.host().own_bytes(), 32 * kMiB);
  request.mutable_budget()->set_reserved_bytes(33 * kMiB);
  const grpc::Status refused =
      admin_->CallAdmin(&v1::Admin::Stub::SetTenantBudget, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("larger than the limit"), std::string::npos)
      << refused.error_message();
  request.set_tenant("nobody");
  EXPECT_EQ(admin_->CallAdmin(&v1::Admin::Stub::SetTenantBudget, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Budget().weight(), 7U);
  Reload(config_);
  EXPECT_TRUE(BecomesWeight(1));
}

}  // namespace
}  // namespace kvasir::testing
