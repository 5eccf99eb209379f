// doctor: each point of a host, well and ill, with what to do; and the facts of a made-up host.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/ctl/doctor.h"

#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

using ::testing::HasSubstr;

HostFacts GoodHost() {
  return {.memlock_limit_bytes = kUnlimited,
          .open_files_limit = 65536,
          .memory_total_bytes = 64 * kGiB,
          .memory_available_bytes = 32 * kGiB,
          .cgroup_limit_bytes = 0,
          .huge_pages_total = 8,
          .huge_pages_free = 8,
          .huge_page_bytes = 2 * kMiB,
          .numa_nodes = 1,
          .future_write_seal = true,
          .leases_enabled = true,
          .lease_probe = true,
          .socket = SocketState::kUsable,
          .socket_path = "/run/c.sock",
          .gpu = {}};
}

DaemonFacts NoDaemon() { return {Unavailable("no daemon"), Unavailable("no daemon")}; }

DaemonFacts GoodDaemon() {
  v1::GetStatsResponse stats;
  stats.set_version("0.1.0");
  stats.set_pool_bytes(4 * kGiB);
  stats.set_memory_locked(true);
  v1::GetHostResponse host;
  host.set_memlock_limit_bytes(kUnlimited);
  host.set_memory_lock_mode("require");
  host.set_open_files_limit(65536);
  return {stats, host};
}

Diagnosis Find(const std::vector<Diagnosis>& list, const std::string& name) {
  for (const Diagnosis& entry : list) {
    if (entry.name == name) return entry;
  }
  ADD_FAILURE() << "no point " << name;
  return {};
}

TEST(DoctorTest, AGoodHostWithADaemonIsWellInEveryPoint) {
  const auto list = Diagnose(GoodHost(), GoodDaemon());
  EXPECT_EQ(WorstOf(list), Health::kOk) << RenderDiagnosis(list, false);
  EXPECT_EQ(Find(list, "daemon").finding, "version 0.1.0 answers, pool of 4.00 GiB");
}

TEST(DoctorTest, WithoutADaemonItSaysSoAndGoesOn) {
  const auto list = Diagnose(GoodHost(), NoDaemon());
  EXPECT_EQ(WorstOf(list), Health::kWarn);
  EXPECT_EQ(Find(list, "daemon").health, Health::kWarn);
  EXPECT_THAT(Find(list, "daemon").advice, HasSubstr("systemctl start kvasird"));
  EXPECT_EQ(Find(list, "locked memory").finding,
            "this user may lock unlimited, the pool has 1.00 GiB");
}

TEST(DoctorTest, EveryIllPointHasAnAdvice) {
  HostFacts host = GoodHost();
  host.memlock_limit_bytes = 8 * kMiB;
  host.open_files_limit = 1024;
  host.memory_total_bytes = 512 * kMiB;
  host.cgroup_limit_bytes = 256 * kMiB;
  host.future_write_seal = false;
  host.leases_enabled = false;
  host.lease_probe = false;
  host.socket = SocketState::kNoAccess;
  host.gpu.pci_devices = 1;
  const auto list = Diagnose(host, NoDaemon());
  const std::pair<const char*, Health> expected[] = {
      {"control socket", Health::kFail}, {"locked memory", Health::kWarn},
      {"memory", Health::kFail},         {"control group", Health::kFail},
      {"memfd seals", Health::kFail},    {"file leases", Health::kFail},
      {"open files", Health::kWarn},     {"GPU", Health::kWarn}};
  for (const auto& [name, health] : expected) {
    EXPECT_EQ(Find(list, name).health, health) << name;
    EXPECT_NE(Find(list, name).advice, "") << name;
  }
  EXPECT_EQ(Find(list, "file leases").advice, "sysctl fs.leases-enable=1");
  EXPECT_EQ(Find(list, "locked memory").finding,
            "this user may lock 8.0 MiB, the pool has 1.00 GiB");
}

TEST(DoctorTest, JudgesByTheDaemonsOwnLimitsWhereItAnswers) {
  HostFacts host = GoodHost();
  host.memlock_limit_bytes = 8 * kMiB;  // of this user: does not matter
  DaemonFacts daemon = GoodDaemon();
  EXPECT_EQ(Find(Diagnose(host, daemon), "locked memory").health, Health::kOk);
  daemon.stats->set_memory_locked(false);
  daemon.host->set_memory_lock_mode("try");
  daemon.host->set_cgroup_limit_bytes(kGiB);
  const auto list = Diagnose(host, daemon);
  EXPECT_EQ(Find(list, "locked memory").health, Health::kWarn);
  EXPECT_THAT(Find(list, "locked memory").finding, HasSubstr("memory.lock = try"));
  EXPECT_EQ(Find(list, "control group").health, Health::kFail);
}

TEST(DoctorTest, WhatTheDaemonHidesIsNotJudgedByThisUsersLimits) {
  HostFacts host = GoodHost();
  host.cgroup_limit_bytes = kMiB;
  host.open_files_limit = 10;
  DaemonFacts daemon = GoodDaemon();
  daemon.host = PermissionDenied("administrators only");
  const auto list = Diagnose(host, daemon);
  EXPECT_EQ(WorstOf(list), Health::kOk) << RenderDiagnosis(list, false);
  EXPECT_EQ(Find(list, "open files").finding, "not shown by the daemon: administrators only");
  EXPECT_EQ(Find(list, "locked memory").finding, "the daemon's pool is locked");
}

TEST(DoctorTest, APoolThatIsTakenAlreadyNeedsNoFreeMemory) {
  HostFacts host = GoodHost();
  host.memory_available_bytes = kMiB;
  EXPECT_EQ(Find(Diagnose(host, GoodDaemon()), "memory").health, Health::kOk);
  EXPECT_EQ(Find(Diagnose(host, NoDaemon()), "memory").health, Health::kWarn);
}

TEST(DoctorTest, SaysWhichNodeTheDaemonIsOnWhereThereAreSeveral) {
  HostFacts host = GoodHost();
  DaemonFacts daemon = GoodDaemon();
  daemon.host->set_numa_node(-1);
  EXPECT_EQ(Find(Diagnose(host, daemon), "NUMA").finding, "one node");
  host.numa_nodes = 2;
  EXPECT_EQ(Find(Diagnose(host, NoDaemon()), "NUMA").finding, "2 nodes");
  EXPECT_EQ(Find(Diagnose(host, daemon), "NUMA").finding, "2 nodes, the pool is on any of them");
  EXPECT_THAT(Find(Diagnose(host, daemon), "NUMA").advice, HasSubstr("memory.numa_node"));
  daemon.host->set_numa_node(1);
  EXPECT_EQ(Find(Diagnose(host, daemon), "NUMA").finding,
            "2 nodes, the daemon and its pool are on node 1");
}

TEST(DoctorTest, PicturesAreForPeopleAndPrograms) {
  const std::vector<Diagnosis> list = {{Health::kOk, "a", "fine", ""},
                                       {Health::kFail, "b", "bad\x1b[2J", "mend it"}};
  EXPECT_EQ(RenderDiagnosis(list, false),
            "OK    a: fine\nFAIL  b: bad\\x1b[2J\n      -> mend it\n");
  const auto json = nlohmann::json::parse(RenderDiagnosisJson(list));
  EXPECT_EQ(json["worst"], "fail");
  EXPECT_EQ(json["checks"][0]["health"], "ok");
  EXPECT_EQ(json["checks"][1]["advice"], "mend it");
}

class HostFactsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/kvasirctl_host_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  std::string root_;
};

TEST_F(HostFactsTest, ReadsMemoryGroupsAndDevicesOfAHost) {
  Write("/proc/meminfo",
        "MemTotal:       65536 kB\nMemAvailable:   1024 kB\nHugePages_Total:       5\n"
        "HugePages_Free:        4\nHugepagesize:       2048 kB\n");
  Write("/proc/self/cgroup", "0::/system.slice/kvasird.service\n");
  Write("/sys/fs/cgroup/system.slice/memory.max", "1048576\n");
  Write("/sys/fs/cgroup/system.slice/kvasird.service/memory.max", "max\n");
  Write("/proc/sys/fs/leases-enable", "1\n");
  const HostFacts facts = GatherHostFacts(root_ + "/none.sock", root_);
  EXPECT_EQ(facts.memory_total_bytes, 64 * kMiB);
  EXPECT_EQ(facts.memory_available_bytes, kMiB);
  EXPECT_EQ(facts.huge_pages_total, 5u);
  EXPECT_EQ(facts.huge_pages_free, 4u);
  EXPECT_EQ(facts.huge_page_bytes, 2 * kMiB);
  EXPECT_EQ(facts.cgroup_limit_bytes, kMiB);  // of the slice above
  EXPECT_TRUE(facts.leases_enabled);
  EXPECT_EQ(facts.socket, SocketState::kMissing);
}

TEST_F(HostFactsTest, CountsNodesOfAList) {
  Write("/sys/devices/system/node/online", "0-1,3\n");
  EXPECT_EQ(GatherHostFacts("", root_).numa_nodes, 3U);
  Write("/sys/devices/system/node/online", "0\n");
  EXPECT_EQ(GatherHostFacts("", root_).numa_nodes, 1U);
  Write("/sys/devices/system/node/online", "0-4294967295\n");
  EXPECT_EQ(GatherHostFacts("", root_).numa_nodes, 0U);
}

TEST_F(HostFactsTest, ReadsTheLimitOfAVersion1Group) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/a\n");
  Write("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "4096\n");
  EXPECT_EQ(GatherHostFacts("", root_).cgroup_limit_bytes, 4096u);
  Write("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(GatherHostFacts("", root_).cgroup_limit_bytes, 0u);
}

TEST_F(HostFactsTest, AFileInPlaceOfTheSocketIsTold) {
  Write("/c.sock", "");
  EXPECT_EQ(GatherHostFacts(root_ + "/c.sock", root_).socket, SocketState::kNotASocket);
}

TEST_F(HostFactsTest, AHostThatSaysNothingLeavesEverythingUnknown) {
  const HostFacts facts = GatherHostFacts(root_ + "/c.sock", root_);
  EXPECT_EQ(facts.memory_total_bytes, 0u);
  EXPECT_EQ(facts.cgroup_limit_bytes, 0u);
  EXPECT_FALSE(facts.leases_enabled);
}

}  // namespace
}  // namespace kvasir::ctl
