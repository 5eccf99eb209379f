// One daemon, two tenants, three real users without capabilities: what one user tries against
// another. The users' programs are in two_users_actor.cc.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kDaemonUid = 12000, kVictimUid = 12001, kAttackerUid = 12002,
                   kStrangerUid = 12003;

std::vector<std::string> AsUser(uint32_t uid) {
  const std::string id = std::to_string(uid);
  return {"/usr/bin/setpriv",
          "--reuid=" + id,
          "--regid=" + id,
          "--clear-groups",
          "--inh-caps=-all",
          "--no-new-privs",
          "--"};
}

class TwoUsersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: the daemon and its clients are other users";
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    ASSERT_EQ(::chmod((folder_.path() + "/notify.sock").c_str(), 0777), 0);
    const std::string run = folder_.path() + "/run";
    ASSERT_TRUE(std::filesystem::create_directory(run));
    ASSERT_EQ(::chown(run.c_str(), kDaemonUid, kDaemonUid), 0);
    for (const char* program : {"kvasird", "two_users_actor"}) {  // the build may be private
      std::filesystem::copy_file(SiblingProgram(program), folder_.path() + "/" + program);
    }
    Config config;
    config.server.control_socket = run + "/control.sock";
    config.server.data_socket = run + "/data.sock";
    config.memory.pool_bytes = 64 * kMiB;
    config.memory.extent_bytes = 4 * kMiB;
    config.memory.recent_extent_bytes = kMiB;
    config.memory.ready_bytes = 8 * kMiB;
    config.memory.lock = Config::Memory::Lock::kOff;
    config.memory.pressure = Config::Memory::Pressure::kOff;
    config.limits.rows_max = 1 << 16;
    config.tenants = {{"victim", {kVictimUid}, 16 * kMiB, "full"},
                      {"attacker", {kAttackerUid}, 4 * kMiB, "full"}};
    control_ = config.server.control_socket;
    data_ = config.server.data_socket;
    daemon_.set_program(folder_.path() + "/kvasird");
    ASSERT_TRUE(daemon_.Start(config, AsUser(kDaemonUid))) << daemon_.process().ReadErrors();
  }

  std::unique_ptr<ChildProcess> Act(uint32_t uid, const std::string& role) {
    std::vector<std::string> argv = AsUser(uid);
    argv.push_back(folder_.path() + "/two_users_actor");
    argv.push_back("--gtest_filter=" + role + ".*");
    return std::make_unique<ChildProcess>(
        argv, std::vector<std::string>{
                  "KVASIR_CONTROL=" + control_, "KVASIR_DATA=" + data_,
                  "KVASIR_VICTIM_PID=" + victim_pid_, "KVASIR_VICTIM_TOKEN=" + victim_token_,
                  "KVASIR_VICTIM_SEQUENCE=" + victim_sequence_,
                  "KVASIR_DAEMON_PID=" + std::to_string(daemon_.process().pid())});
  }

  // Value of the next `name=` line of the victim.
  static std::string ReadValue(ChildProcess& process, const std::string& name) {
    while (const std::optional<std::string> line = process.ReadLine()) {
      if (line->starts_with(name + "=")) return line->substr(name.size() + 1);
    }
    ADD_FAILURE() << "the program ended without " << name;
    return "";
  }

  static void ExpectPassed(ChildProcess& process) {
    std::string output;
    while (const std::optional<std::string> line = process.ReadLine()) output += *line + "\n";
    EXPECT_EQ(process.Wait(), 0) << output;
    EXPECT_EQ(output.find("0 tests from"), std::string::npos) << output;
  }

  TemporaryFolder folder_;
  DaemonProcess daemon_{folder_.path()};
  std::string control_, data_, victim_pid_, victim_token_, victim_sequence_;
};

TEST_F(TwoUsersTest, OneCannotReachTheOther) {
  const std::unique_ptr<ChildProcess> victim = Act(kVictimUid, "Victim");
  victim_token_ = ReadValue(*victim, "token");
  victim_sequence_ = ReadValue(*victim, "sequence");
  victim_pid_ = std::to_string(victim->pid());
  ASSERT_EQ(victim_token_.size(), 32U);
  ExpectPassed(*Act(kAttackerUid, "Attacker"));
  ExpectPassed(*Act(kStrangerUid, "Stranger"));
  victim->Signal(SIGTERM);
  ExpectPassed(*victim);

  // Root is an administrator: it sees that nothing is left.
  RawCalls admin(control_, "");
  v1::GetStatsResponse stats;
  const grpc::Status status =
      admin.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(stats.tenants_size(), 2);
  EXPECT_EQ(stats.tenants(0).violations() + stats.tenants(1).violations(), 0U);
  EXPECT_GT(stats.tenants(0).rejected_calls(), 0U);  // somebody else used its token
  v1::DropPrefixesRequest evict;
  evict.set_tenant("victim");
  v1::DropPrefixesResponse dropped;
  EXPECT_TRUE(admin.CallAdmin(&v1::Admin::Stub::DropPrefixes, evict, &dropped).ok());
  evict.set_tenant("\xff");  // no UTF-8: refused before anything of ours sees it
  EXPECT_FALSE(admin.CallAdmin(&v1::Admin::Stub::DropPrefixes, evict, &dropped).ok());
  daemon_.process().Signal(SIGTERM);
  EXPECT_EQ(daemon_.process().Wait(), 0);
  const std::string log = daemon_.process().ReadErrors();
  EXPECT_THAT(log, HasSubstr("audit refused=engine_call uid=12002 pid="));
  EXPECT_THAT(log, HasSubstr("audit refused=session uid=12003 pid="));
  EXPECT_THAT(log, HasSubstr(" tenant=- target=victim result=ok"));
  EXPECT_THAT(log, Not(HasSubstr("libprotobuf")));  // whose lines nobody bounds
}

}  // namespace
}  // namespace kvasir::testing
