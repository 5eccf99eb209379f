// One daemon, two tenants, three real users without capabilities: what one user tries against
// another. The users' programs are in two_users_actor.cc.
#include <signal.h>

#include <optional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/integration/users_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kVictimUid = 12001, kAttackerUid = 12002, kStrangerUid = 12003;

using TwoUsersTest = UsersFixture;

TEST_F(TwoUsersTest, OneCannotReachTheOther) {
  Config config = MakeConfig({{"victim", {kVictimUid}, 16 * kMiB, "full"},
                              {"attacker", {kAttackerUid}, 16 * kMiB, "full"}});
  config.tier.disk_path = run_ + "/tier";
  config.tier.disk_bytes = 64 * kMiB;
  ASSERT_TRUE(StartLogged(config));
  const std::unique_ptr<ChildProcess> victim = Act(AsUser(kVictimUid), "Victim");
  while (const std::optional<std::string> line = victim->ReadLine()) {
    if (line->starts_with("ready=")) break;
    if (line->find('=') != std::string::npos && line->find(' ') == std::string::npos) {
      target_ += *line + "\n";  // else it is the test program's own
    }
  }
  ASSERT_NE(target_.find("tenant=victim"), std::string::npos) << target_;
  target_ += "daemon_pid=" + std::to_string(daemon_.process().pid()) + "\n";
  ExpectPassed(*Act(AsUser(kAttackerUid), "Attacker"));
  ExpectPassed(*Act(AsUser(kStrangerUid), "Stranger"));
  victim->Signal(SIGTERM);
  ExpectPassed(*victim);

  // Root is an administrator: it sees that nothing is left.
  RawCalls admin(config.server.control_socket, "");
  v1::GetStatsResponse stats;
  const grpc::Status status =
      admin.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(stats.tenants_size(), 2);
  EXPECT_EQ(stats.tenants(0).violations(), 0U);
  EXPECT_EQ(stats.tenants(1).violations(), 13U);     // as many as AttackProtocol() has lies
  EXPECT_GT(stats.tenants(0).rejected_calls(), 0U);  // somebody else used its token
  v1::ListTiersResponse tiers;
  ASSERT_TRUE(admin.CallAdmin(&v1::Admin::Stub::ListTiers, v1::ListTiersRequest(), &tiers).ok());
  ASSERT_EQ(tiers.tiers_size(), 1);
  EXPECT_EQ(tiers.tiers(0).tenants_size(), 2);
  EXPECT_GT(tiers.tiers(0).capacity_bytes(), 0U);
  v1::DropPrefixesRequest evict;
  evict.set_tenant("victim");
  v1::DropPrefixesResponse dropped;
  EXPECT_TRUE(admin.CallAdmin(&v1::Admin::Stub::DropPrefixes, evict, &dropped).ok());
  evict.set_tenant("\xff");  // no UTF-8: refused before anything of ours sees it
  EXPECT_FALSE(admin.CallAdmin(&v1::Admin::Stub::DropPrefixes, evict, &dropped).ok());
  daemon_.process().Signal(SIGTERM);
  EXPECT_EQ(daemon_.process().Wait(), 0);
  const std::string log = ReadLog();
  EXPECT_THAT(log, HasSubstr("audit refused=engine_call uid=12002 pid="));
  EXPECT_THAT(log, HasSubstr("audit refused=session uid=12003 pid="));
  EXPECT_THAT(log, HasSubstr("session ended for a violation of the protocol"));
  EXPECT_THAT(log, HasSubstr(" tenant=- target=victim result=ok"));
  EXPECT_THAT(log, Not(HasSubstr("libprotobuf")));  // whose lines nobody bounds
}

}  // namespace
}  // namespace kvasir::testing
