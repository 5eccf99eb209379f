#include "base/process_identity.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/unix_socket.h"

#include <fmt/format.h>
#include <sched.h>
#include <stdlib.h>

namespace kvasir {
namespace {

using ::testing::HasSubstr;

std::string StatOf(const std::string& name) {
  std::string stat = "17 (" + name + ") S";
  for (int field = 4; field < 22; ++field) stat += fmt::format(" {}", field);
  return stat + " 4242 23 24\n";
}

TEST(ParseStartTime, NamesMayHoldAnything) {
  for (const char* name : {"engine", "a) b (c", ")", "((", ") S 4 5 6 7", "a b c d e f g h", ""}) {
    const absl::StatusOr<uint64_t> ticks = ParseStartTime(StatOf(name));
    ASSERT_TRUE(ticks.ok()) << name;
    EXPECT_EQ(*ticks, 4242U) << name;
  }
}

TEST(ParseStartTime, RefusesWhatIsNoStat) {
  const std::string good = StatOf("x");
  for (const std::string& bad : {std::string(), std::string("17 x S 4"), std::string("17 (x)"),
                                 std::string("17 (x) S 4 5 6"), good.substr(0, good.find(" 4242")),
                                 std::string("1 (x) S") + std::string(18, ' ') + " -1 2",
                                 std::string("1 (x) S") + std::string(40, ' ')}) {
    EXPECT_EQ(ParseStartTime(bad).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
  for (size_t i = 0; i < good.size(); ++i) (void)ParseStartTime(good.substr(0, i));
}

TEST(ParseCgroup, TakesTheUnifiedLine) {
  const auto path = [](const std::string& text) {
    const absl::StatusOr<std::string> parsed = ParseCgroup(text);
    return parsed.ok() ? *parsed : "error: " + MessageOf(parsed.status());
  };
  EXPECT_EQ(path("0::/system.slice/llm-a.service\n"), "/system.slice/llm-a.service");
  EXPECT_EQ(path("9:name=systemd:/x\n4:memory:/y\n0::/unified/z\n"), "/unified/z");
  EXPECT_EQ(path("0::/\n"), "/");
  EXPECT_EQ(path("0::/no line end"), "/no line end");
  EXPECT_EQ(path("0::/a:b/0::/c\n"), "/a:b/0::/c");
  EXPECT_EQ(path("0::/a..b/c\n"), "/a..b/c");
  EXPECT_EQ(path("9:name=systemd:/x\n"), "");  // cgroup v1 alone
  EXPECT_EQ(path("10::/x\n"), "");
  EXPECT_EQ(path(""), "");
  EXPECT_EQ(path("0::/../other.slice\n"), "");  // beside this process's cgroup namespace
  EXPECT_EQ(path("0::/..\n"), "");
  EXPECT_THAT(path("0::\n"), HasSubstr("error"));
  EXPECT_THAT(path("0::relative\n"), HasSubstr("error"));
  EXPECT_THAT(path("0::/a\x1b[2J\n"), HasSubstr("control byte"));
  EXPECT_THAT(path("0::/a\x7f/b\n"), HasSubstr("control byte"));
  EXPECT_EQ(path("0::/\xc3\xa4\n"), "/\xc3\xa4");
  EXPECT_THAT(path("0::/" + std::string(5000, 'a')), HasSubstr("max=4096"));
}

TEST(ParseProcessStatus, TakesItsLines) {
  const std::string good =
      "Name:\tUid:\\n\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t100\t7\nCapInh:\t00\n"
      "CapPrm:\t000001ffffffffff\nThreads:\t1\n";
  const absl::StatusOr<ProcessStatus> status = ParseProcessStatus(good);
  ASSERT_TRUE(status.ok()) << MessageOf(status.status());
  EXPECT_EQ(status->effective_uid, 2U);
  EXPECT_EQ(status->effective_gid, 6U);
  EXPECT_EQ(status->permitted_capabilities, 0x1ffffffffffU);
  EXPECT_EQ(status->pid_namespaces, 2U);
  for (const char* line : {"Uid:", "Gid:", "CapPrm:"}) {
    std::string bad = good;
    bad.replace(bad.find("\n" + std::string(line)) + 1, 1, "X");
    EXPECT_EQ(ParseProcessStatus(bad).status().code(), absl::StatusCode::kDataLoss) << line;
  }
  EXPECT_EQ(ParseProcessStatus("Uid:\t0\t0\nGid:\t0\t0\nCapPrm:\t0\n")->pid_namespaces, 1U);
  EXPECT_FALSE(ParseProcessStatus("Uid:\nGid:\nNSpid:\nCapPrm:\n").ok());
  EXPECT_FALSE(ParseProcessStatus("").ok());
  for (size_t i = 0; i < good.size(); ++i) (void)ParseProcessStatus(good.substr(0, i));
}

// A child that connects to this process, and this process's end of the connection.
class Child {
 public:
  // `before` runs in the child, which connects if it says true; then it waits until it is killed,
  // or ends at once.
  explicit Child(const std::function<bool()>& before, bool ends = false) {
    std::string folder = ::testing::TempDir() + "/identity-XXXXXX";
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    const std::string path = folder + "/socket";
    absl::StatusOr<UniqueFd> listener = ListenUnix(path, SocketType::kStream, 0666);
    EXPECT_TRUE(listener.ok());
    EXPECT_EQ(::chmod(folder.c_str(), 0755), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (!before()) ::_exit(1);
      const absl::StatusOr<UniqueFd> connected = ConnectUnix(path, SocketType::kStream);
      if (!connected.ok() || ends) ::_exit(2);
      for (;;) ::pause();
    }
    const absl::StatusOr<bool> readable = WaitReadable(listener->get(), 2000);
    if (readable.ok() && *readable) {
      socket_ = UniqueFd(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    if (ends) (void)::waitpid(std::exchange(pid_, -1), nullptr, 0);
    (void)::unlink(path.c_str());
    (void)::rmdir(folder.c_str());
  }
  ~Child() {
    if (pid_ <= 0) return;
    (void)::kill(pid_, SIGKILL);
    (void)::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool connected() const { return static_cast<bool>(socket_); }
  const UniqueFd& socket() const { return socket_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd socket_;
};

PeerIdentity Identify(const Child& child) {
  absl::StatusOr<PeerIdentity> identity = IdentifyPeer(child.socket());
  EXPECT_TRUE(identity.ok()) << MessageOf(identity.status());
  return identity.ok() ? *std::move(identity) : PeerIdentity();
}

std::string OwnCgroup() {
  std::ifstream file("/proc/self/cgroup");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return *ParseCgroup(text);
}

TEST(IdentifyPeer, SaysWhoConnected) {
  const Child child([] { return ::prctl(PR_SET_NAME, "a) b (c") == 0; });
  ASSERT_TRUE(child.connected());
  const PeerIdentity identity = Identify(child);
  EXPECT_EQ(identity.uid, ::geteuid());
  EXPECT_EQ(identity.gid, ::getegid());
  EXPECT_EQ(identity.pid, static_cast<uint32_t>(child.pid()));
  EXPECT_TRUE(identity.pidfd);
  EXPECT_EQ(identity.cgroup, OwnCgroup());
  EXPECT_FALSE(identity.contained);
  std::ifstream file(fmt::format("/proc/{}/stat", child.pid()));
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  ASSERT_THAT(stat, HasSubstr("(a) b (c)"));
  EXPECT_EQ(identity.start_time_ticks, *ParseStartTime(stat));
  const absl::StatusOr<PeerIdentity> by_number = IdentifyPeerByNumber(child.socket());
  ASSERT_TRUE(by_number.ok()) << MessageOf(by_number.status());
  EXPECT_EQ(by_number->uid, identity.uid);
  EXPECT_EQ(by_number->cgroup, identity.cgroup);
  EXPECT_EQ(by_number->start_time_ticks, identity.start_time_ticks);
  EXPECT_TRUE(by_number->pidfd);
}

TEST(IdentifyPeer, RefusesWhoHasEnded) {
  const Child child([] { return true; }, /*ends=*/true);
  ASSERT_TRUE(child.connected());
  for (const auto& identity :
       {IdentifyPeer(child.socket()).status(), IdentifyPeerByNumber(child.socket()).status()}) {
    EXPECT_EQ(identity.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(identity), HasSubstr("has ended: pid="));
  }
}

// The next process that is made gets this number, if nobody else makes one meanwhile. 0: not here.
pid_t ForkWithNumber(pid_t number) {
  for (int tries = 0; tries < 100; ++tries) {
    std::ofstream last("/proc/sys/kernel/ns_last_pid");
    last << number - 1 << std::flush;
    if (!last.good()) return 0;
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::setgid(12001) != 0 || ::setuid(12001) != 0) ::_exit(1);
      for (;;) ::pause();
    }
    if (pid == number) return pid;
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
  }
  return 0;
}

TEST(IdentifyPeer, ANumberThatIsUsedAgainIsNotThePeer) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to choose a number";
  const Child child([] { return true; }, /*ends=*/true);
  ASSERT_TRUE(child.connected());
  const auto number = static_cast<pid_t>(GetPeerCredentials(child.socket())->pid);
  const pid_t other = ForkWithNumber(number);
  if (other == 0) GTEST_SKIP() << "numbers cannot be chosen here";
  const absl::Status status = IdentifyPeer(child.socket()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << MessageOf(status);
  while (IdentifyPeerByNumber(child.socket()).ok()) std::this_thread::yield();  // until its setuid
  EXPECT_THAT(MessageOf(IdentifyPeerByNumber(child.socket()).status()),
              HasSubstr("is another one now"));
  (void)::kill(other, SIGKILL);
  (void)::waitpid(other, nullptr, 0);
}

TEST(IdentifyPeer, APidfdTellsTheEnd) {
  Child child([] { return true; });
  ASSERT_TRUE(child.connected());
  const PeerIdentity identity = Identify(child);
  EXPECT_FALSE(*WaitReadable(identity.pidfd.get(), 0));
  ASSERT_EQ(::kill(child.pid(), SIGKILL), 0);
  EXPECT_TRUE(*WaitReadable(identity.pidfd.get(), 2000));
}

TEST(IdentifyPeer, WithoutCapabilitiesPermissionsBind) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  const Child root([] { return true; });
  ASSERT_TRUE(root.connected());
  EXPECT_TRUE(Identify(root).overrides_permissions);
  const Child user([] { return ::setgid(12001) == 0 && ::setuid(12001) == 0; });
  ASSERT_TRUE(user.connected());
  const PeerIdentity identity = Identify(user);
  EXPECT_EQ(identity.uid, 12001U);
  EXPECT_EQ(identity.gid, 12001U);
  EXPECT_FALSE(identity.overrides_permissions);
  EXPECT_FALSE(identity.contained);
  const Child capable([] {  // keeps what is permitted over the change of user; nothing is in effect
    return ::prctl(PR_SET_KEEPCAPS, 1) == 0 && ::setuid(12001) == 0;
  });
  ASSERT_TRUE(capable.connected());
  EXPECT_TRUE(Identify(capable).overrides_permissions);
}

// Root of a container of its own user namespace is whom the host maps it to, and nobody's root.
TEST(IdentifyPeer, RootOfAUserNamespaceIsContained) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  const auto enter = [] {
    if (::setgid(12001) != 0 || ::setuid(12001) != 0) return false;
    ::prctl(PR_SET_DUMPABLE, 1);  // else its files in /proc are root's
    if (::unshare(CLONE_NEWUSER) != 0) return false;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/gid_map") << "0 12001 1";
    std::ofstream("/proc/self/uid_map") << "0 12001 1";
    return ::geteuid() == 0;
  };
  const Child child(enter);
  if (!child.connected()) GTEST_SKIP() << "no user namespace for users here";
  const PeerIdentity identity = Identify(child);
  EXPECT_EQ(identity.uid, 12001U);
  EXPECT_TRUE(identity.contained);
  if (std::ifstream file("/proc/self/uid_map"); file) {
    std::string first, outside, count;
    file >> first >> outside >> count;
    // In the initial namespace alone it is known that the other one lies below.
    if (count == "4294967295") {
      EXPECT_FALSE(identity.overrides_permissions);
    }
  }
}

TEST(IdentifyPeer, AProcessNamespaceIsContained) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to make a namespace";
  // The first child of the process that unshares is the first process of the namespace: it
  // connects, and its parent waits for the end.
  const Child child([] {
    if (::unshare(CLONE_NEWPID) != 0) return false;
    const pid_t inner = ::fork();
    if (inner != 0) {
      for (;;) ::pause();
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    return true;
  });
  ASSERT_TRUE(child.connected());
  const PeerIdentity identity = Identify(child);
  EXPECT_NE(identity.pid, static_cast<uint32_t>(child.pid()));
  EXPECT_TRUE(identity.contained);
  EXPECT_EQ(identity.uid, 0U);
}

TEST(IdentifyPeer, SaysTheCgroup) {
  const std::string mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
  std::string folder;
  for (const std::string& mount : mounts) {
    const std::string tried = fmt::format("{}/kvasir-identity-{}", mount, ::getpid());
    struct stat info {};
    if (::stat((mount + "/cgroup.procs").c_str(), &info) == 0 &&
        ::mkdir(tried.c_str(), 0755) == 0) {
      folder = tried;
    }
  }
  if (folder.empty()) GTEST_SKIP() << "no cgroup v2 here that may be written";
  {
    const Child child([&folder] {
      std::ofstream procs(folder + "/cgroup.procs");
      procs << ::getpid() << std::flush;
      return procs.good();
    });
    if (child.connected()) {
      EXPECT_THAT(Identify(child).cgroup, HasSubstr("/kvasir-identity-"));
    }
  }
  EXPECT_EQ(::rmdir(folder.c_str()), 0);
}

}  // namespace
}  // namespace kvasir
