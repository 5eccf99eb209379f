// UsersFixture: kvasird as a user without capabilities, and programs of other users and places.
#ifndef KVASIR_TESTS_INTEGRATION_USERS_FIXTURE_H_
#define KVASIR_TESTS_INTEGRATION_USERS_FIXTURE_H_

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

namespace kvasir::testing {

inline constexpr uint32_t kDaemonUid = 12000;

inline std::vector<std::string> AsUser(uint32_t uid, uint32_t gid) {
  return {"/usr/bin/setpriv",
          "--reuid=" + std::to_string(uid),
          "--regid=" + std::to_string(gid),
          "--clear-groups",
          "--inh-caps=-all",
          "--no-new-privs",
          "--"};
}
inline std::vector<std::string> AsUser(uint32_t uid) { return AsUser(uid, uid); }

// Skips where this process is not root. The programs of users are in two_users_actor.cc.
class UsersFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: the daemon and its clients are other users";
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    ASSERT_EQ(::chmod((folder_.path() + "/notify.sock").c_str(), 0777), 0);
    run_ = folder_.path() + "/run";
    ASSERT_TRUE(std::filesystem::create_directory(run_));
    ASSERT_EQ(::chown(run_.c_str(), kDaemonUid, kDaemonUid), 0);
    for (const char* program : {"kvasird", "two_users_actor"}) {  // the build may be private
      std::filesystem::copy_file(SiblingProgram(program), folder_.path() + "/" + program);
    }
    daemon_.set_program(folder_.path() + "/kvasird");
  }

  Config MakeConfig(std::vector<Config::Tenant> tenants) const {
    Config config;
    config.server.control_socket = run_ + "/control.sock";
    config.server.data_socket = run_ + "/data.sock";
    config.memory.pool_bytes = 64 * kMiB;
    config.memory.extent_bytes = 4 * kMiB;
    config.memory.recent_extent_bytes = kMiB;
    config.memory.ready_bytes = 8 * kMiB;
    config.memory.lock = Config::Memory::Lock::kOff;
    config.memory.pressure = Config::Memory::Pressure::kOff;
    config.limits.rows_max = 1 << 16;
    config.tenants = std::move(tenants);
    return config;
  }

  // Starts the daemon, which logs into a file: attacks have it say more than a pipe holds that
  // nobody reads.
  bool StartLogged(const Config& config) {
    std::vector<std::string> prefix = AsUser(kDaemonUid);
    prefix.insert(prefix.end(), {"/bin/sh", "-c", "exec \"$@\" 2>" + run_ + "/log", "sh"});
    return daemon_.Start(config, prefix);
  }
  std::string ReadLog() const {
    std::ifstream file(run_ + "/log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Runs the tests `role`.* of the actor; `as` is put before its command line.
  std::unique_ptr<ChildProcess> Act(const std::vector<std::string>& as, const std::string& role) {
    std::vector<std::string> argv = as;
    argv.push_back(folder_.path() + "/two_users_actor");
    argv.push_back("--gtest_filter=" + role + ".*");
    return std::make_unique<ChildProcess>(
        argv,
        std::vector<std::string>{"KVASIR_CONTROL=" + run_ + "/control.sock",
                                 "KVASIR_DATA=" + run_ + "/data.sock", "KVASIR_TARGET=" + target_});
  }

  // Value of the next `name=` line of a program.
  static std::string ReadValue(ChildProcess& process, const std::string& name) {
    while (const std::optional<std::string> line = process.ReadLine()) {
      if (line->starts_with(name + "=")) return line->substr(name.size() + 1);
    }
    ADD_FAILURE() << "the program ended without " << name << ": " << process.ReadErrors();
    return "";
  }

  static void ExpectPassed(ChildProcess& process) {
    std::string output;
    while (const std::optional<std::string> line = process.ReadLine()) output += *line + "\n";
    EXPECT_EQ(process.Wait(), 0) << output << process.ReadErrors();
    EXPECT_EQ(output.find("0 tests from"), std::string::npos) << output;
  }

  TemporaryFolder folder_;
  DaemonProcess daemon_{folder_.path()};
  std::string run_;
  std::string target_;  // what attackers are told of their victim (client/attack/target.h)
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_USERS_FIXTURE_H_
