// Who a connected process is to the daemon: by cgroup, uid and gid, in containers, and when it is
// gone. The processes' program is in two_users_actor.cc.
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/integration/users_fixture.h"
#include "tests/support/raw_client.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

constexpr uint32_t kUser = 12001, kOther = 12002, kGroup = 12900;

struct Told {
  std::string session, sees, token;
};

class IdentityTest : public UsersFixture {
 protected:
  // The process runs until the test ends.
  Told Ask(const std::vector<std::string>& as) {
    processes_.push_back(Act(as, "Teller"));
    Told told;
    told.session = ReadValue(*processes_.back(), "session");
    told.sees = ReadValue(*processes_.back(), "sees");
    told.token = ReadValue(*processes_.back(), "token");
    return told;
  }

  static Config::Tenant TenantOf(const std::string& name) {
    Config::Tenant tenant;
    tenant.name = name;
    tenant.limit_bytes = 8 * kMiB;
    tenant.retention = "full";
    return tenant;
  }

  std::vector<std::unique_ptr<ChildProcess>> processes_;
};

std::vector<std::string> Joined(std::vector<std::string> first,
                                const std::vector<std::string>& then) {
  first.insert(first.end(), then.begin(), then.end());
  return first;
}

TEST_F(IdentityTest, AGidWhereTheUidHasNoTenant) {
  std::vector<Config::Tenant> tenants = {TenantOf("by-uid"), TenantOf("by-gid")};
  tenants[0].uids = {kUser};
  tenants[1].gids = {kGroup};
  ASSERT_TRUE(daemon_.Start(MakeConfig(tenants), AsUser(kDaemonUid)));
  EXPECT_EQ(Ask(AsUser(kUser, kGroup)).sees, "by-uid");
  const Told other = Ask(AsUser(kOther, kGroup));
  EXPECT_EQ(other.sees, "by-gid");
  EXPECT_EQ(other.session, "open");
  const Told nobody = Ask(AsUser(kOther, kOther));
  EXPECT_EQ(nobody.sees, "none");
  EXPECT_EQ(nobody.session, "PERMISSION_DENIED");
}

TEST_F(IdentityTest, TheDefaultWhereTheOperatorSaysSo) {
  std::vector<Config::Tenant> tenants = {TenantOf("by-uid"), TenantOf("others")};
  tenants[0].uids = {kUser};
  Config config = MakeConfig(tenants);
  config.server.default_tenant = "others";
  ASSERT_TRUE(daemon_.Start(config, AsUser(kDaemonUid)));
  EXPECT_EQ(Ask(AsUser(kUser)).sees, "by-uid");
  EXPECT_EQ(Ask(AsUser(kOther)).sees, "others");
}

// Root of a container administers nothing, whether its root is the host's or is mapped.
TEST_F(IdentityTest, RootOfAContainerIsNoAdministrator) {
  std::vector<Config::Tenant> tenants = {TenantOf("root"), TenantOf("user")};
  tenants[0].uids = {0};
  tenants[1].uids = {kUser};
  ASSERT_TRUE(daemon_.Start(MakeConfig(tenants), AsUser(kDaemonUid)));
  EXPECT_EQ(Ask({"/usr/bin/env"}).sees, "all");
  EXPECT_EQ(Ask({"/usr/bin/unshare", "--pid", "--fork", "--kill-child"}).sees, "root");
  const std::vector<std::string> mapped = {"/usr/bin/unshare", "--user", "--map-root-user"};
  EXPECT_EQ(Ask(mapped).sees, "root");  // of a user namespace that maps root to root
  ChildProcess probe(Joined(AsUser(kUser), Joined(mapped, {"/bin/true"})), {});
  if (probe.Wait() != 0) GTEST_SKIP() << "no user namespace for users here";
  EXPECT_EQ(Ask(Joined(AsUser(kUser), mapped)).sees, "user");
}

TEST_F(IdentityTest, RootOfAContainerWhereItIsNamed) {
  Config config = MakeConfig({TenantOf("any")});
  config.admin.uids = {0};
  ASSERT_TRUE(daemon_.Start(config, AsUser(kDaemonUid)));
  EXPECT_EQ(Ask({"/usr/bin/unshare", "--pid", "--fork", "--kill-child"}).sees, "all");
}

// Cgroups of this test's own, where that is possible.
class CgroupIdentityTest : public IdentityTest {
 protected:
  void SetUp() override {
    IdentityTest::SetUp();
    if (IsSkipped()) return;
    for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      struct stat info {};
      if (::stat(fmt::format("{}/cgroup.procs", mount).c_str(), &info) != 0) continue;
      const std::string folder = fmt::format("{}/kvasir-test-{}", mount, ::getpid());
      if (::mkdir(folder.c_str(), 0755) == 0) made_.push_back(folder);
      break;
    }
    if (made_.empty()) GTEST_SKIP() << "no cgroup v2 here that may be written";
    // Where this test itself is in a cgroup namespace, paths are relative to its root.
    ChildProcess probe(In(made_[0], {"/bin/cat", "/proc/self/cgroup"}), {});
    while (const std::optional<std::string> line = probe.ReadLine()) {
      if (line->starts_with("0::")) path_ = line->substr(3);
    }
    if (probe.Wait() != 0) GTEST_SKIP() << "no process may be moved to another cgroup here";
    ASSERT_FALSE(path_.empty());
  }
  void TearDown() override {
    processes_.clear();
    for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) {
      while (::rmdir(folder->c_str()) != 0 && errno == EBUSY) std::this_thread::yield();
    }
  }

  std::string Below(const std::string& name) {
    made_.push_back(made_[0] + "/" + name);
    EXPECT_EQ(::mkdir(made_.back().c_str(), 0755), 0);
    return made_.back();
  }
  static std::vector<std::string> In(const std::string& folder,
                                     const std::vector<std::string>& argv) {
    return Joined({"/bin/sh", "-c", "echo $$ > " + folder + "/cgroup.procs && exec \"$@\"", "sh"},
                  argv);
  }

  std::string path_;  // of the first one, as /proc tells it
  std::vector<std::string> made_;
};

TEST_F(CgroupIdentityTest, ACgroupIsBeforeAUid) {
  std::vector<Config::Tenant> tenants = {TenantOf("a"), TenantOf("b"), TenantOf("rest"),
                                         TenantOf("by-uid")};
  tenants[0].cgroups = {path_ + "/a"};
  tenants[1].cgroups = {path_ + "/b"};
  tenants[2].cgroups = {path_ + "/*"};
  tenants[3].uids = {kUser};
  ASSERT_TRUE(daemon_.Start(MakeConfig(tenants), AsUser(kDaemonUid)));
  const std::string a = Below("a"), b = Below("b"), c = Below("c"), deep = Below("a/deep");
  const Told told_a = Ask(In(a, AsUser(kUser)));
  EXPECT_EQ(told_a.session, "open");
  EXPECT_EQ(told_a.sees, "a");
  EXPECT_EQ(Ask(In(b, AsUser(kUser))).sees, "b");
  EXPECT_EQ(Ask(In(deep, AsUser(kOther))).sees, "a");
  EXPECT_EQ(Ask(In(c, AsUser(kOther))).sees, "rest");
  EXPECT_EQ(Ask(In(made_[0], AsUser(kUser))).sees, "by-uid");
  EXPECT_EQ(Ask(In(made_[0], AsUser(kOther))).sees, "none");
  EXPECT_EQ(Ask(AsUser(kUser)).sees, "by-uid");
  // A session's token is of no use to the same user in another tenant's cgroup.
  ASSERT_EQ(told_a.token.size(), 32U);
  std::vector<std::string> thief = In(b, AsUser(kUser));
  thief.push_back(folder_.path() + "/two_users_actor");
  thief.push_back("--gtest_filter=Attacker.CannotUseAnothersNames");
  ChildProcess process(
      thief, {"KVASIR_TARGET=control_socket=" + run_ + "/control.sock\ndata_socket=" + run_ +
              "/data.sock\ntoken=" + told_a.token});
  ExpectPassed(process);
}

// A process that has ended when its connection is accepted; another one has its end of it.
class GonePeerTest : public DaemonFixture {};

TEST_F(GonePeerTest, IsRefusedAndCounted) {
  ASSERT_EQ(server_->Snapshot().unidentified_peers, 0U);
  for (const SocketType type : {SocketType::kSeqPacket, SocketType::kStream}) {
    const std::string path =
        folder_.path() + (type == SocketType::kStream ? "/control.sock" : "/data.sock");
    const uint64_t before = server_->Snapshot().unidentified_peers;
    pid_t keeper = -1;
    {
      // The daemon's thread stops at the core's lock after one accepted connection: the second one
      // waits in the backlog until its process has ended.
      MutexLock lock(server_->shared_for_test().mutex);
      const absl::StatusOr<UniqueFd> first =
          ConnectUnix(folder_.path() + "/data.sock", SocketType::kSeqPacket);
      ASSERT_TRUE(first.ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      int report[2] = {-1, -1};
      ASSERT_EQ(::pipe(report), 0);
      const pid_t child = ::fork();
      if (child == 0) {
        const absl::StatusOr<UniqueFd> socket = ConnectUnix(path, type);
        const pid_t inner = socket.ok() ? ::fork() : -1;
        if (inner == 0) {
          for (;;) ::pause();
        }
        (void)!::write(report[1], &inner, sizeof(inner));
        ::_exit(0);
      }
      ASSERT_EQ(::waitpid(child, nullptr, 0), child);
      ASSERT_EQ(::read(report[0], &keeper, sizeof(keeper)), static_cast<ssize_t>(sizeof(keeper)));
      ::close(report[0]);
      ::close(report[1]);
      ASSERT_GT(keeper, 0);
    }
    while (server_->Snapshot().unidentified_peers == before) std::this_thread::yield();
    EXPECT_EQ(server_->Snapshot().unidentified_peers, before + 1);
    ::kill(keeper, SIGKILL);
  }
}

}  // namespace
}  // namespace kvasir::testing
