// Metrics: every count of the snapshot is shown, with its unit, help and tenant, and over HTTP as
// well.
#include "daemon/metrics.h"

#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/posix.h"
#include "daemon/metric_names.h"

#include <arpa/inet.h>
#include <netinet/in.h>

namespace kvasir {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

StatsSnapshot Example() {
  StatsSnapshot snapshot{.boot_epoch = 18446744073709551615u,
                         .version = "0.1.0",
                         .uptime_ms = 1500,
                         .pool_bytes = 1073741824,
                         .pool_free_bytes = 2,
                         .pool_ready_bytes = 3,
                         .held_bytes = 4,
                         .charged_bytes = 5,
                         .memory_locked = true,
                         .late_faults = 6,
                         .tenants = {},
                         .tiers = {},
                         .audit_acts = 7,
                         .audit_refusals = 8,
                         .audit_suppressed = 9,
                         .lock_wait_ns = 2'500'000'000,
                         .share_wait_ns = 500'000'000};
  snapshot.tenants.push_back({.tenant = "a",
                              .held_bytes = 11,
                              .charged_bytes = 12,
                              .limit_bytes = 13,
                              .sessions = 14,
                              .sequences = 15,
                              .rows_seen = 16,
                              .rows_kept = 17,
                              .compactions = 18,
                              .rejected_calls = 19,
                              .violations = 20,
                              .hit_ratios = {{0.125, 0.25}, {8, 0.75}}});
  snapshot.tenants.push_back({.tenant = "b", .held_bytes = 9007199254740992});
  snapshot.tenants[0].devices.push_back({.pool = "gpu0", .charged_bytes = 42});
  DevicePoolSnapshot& pool = snapshot.device_pools.emplace_back();
  pool.pool = "gpu0";
  pool.device_uuid = "GPU-1";
  pool.waste_bytes = 41;
  pool.lost = "fell off the bus";
  TierSnapshot& disk = snapshot.tiers.emplace_back();
  disk.tier = "disk";
  disk.left_out = true;
  disk.reads = {{"corrupt", 39}};
  disk.tenants.push_back({"a", 31, 32, 33, 34, 35, 36, 37, 38});
  return snapshot;
}

// name{labels} -> value
std::map<std::string, double> Flatten(const std::vector<prometheus::MetricFamily>& families) {
  std::map<std::string, double> out;
  for (const auto& family : families) {
    for (const auto& sample : family.metric) {
      std::string name = family.name;
      for (const auto& label : sample.label) name += "{" + label.name + "=" + label.value + "}";
      out[name] = family.type == prometheus::MetricType::Counter ? sample.counter.value
                                                                 : sample.gauge.value;
    }
  }
  return out;
}

TEST(MetricsTest, ShowEveryCountOfTheDaemonAndOfEachTenant) {
  const std::map<std::string, double> found = Flatten(CollectMetrics(Example()));
  const std::map<std::string, double> expected = {
      {"kvasir_build_info{version=0.1.0}{boot_epoch=18446744073709551615}", 1},
      {"kvasir_uptime_seconds", 1.5},
      {"kvasir_pool_bytes", 1073741824},
      {"kvasir_pool_free_bytes", 2},
      {"kvasir_pool_ready_bytes", 3},
      {"kvasir_held_bytes", 4},
      {"kvasir_charged_bytes", 5},
      {"kvasir_memory_locked", 1},
      {"kvasir_late_faults_total", 6},
      {"kvasir_core_lock_wait_seconds_total", 2.5},
      {"kvasir_core_share_wait_seconds_total", 0.5},
      {"kvasir_audit_acts_total", 7},
      {"kvasir_audit_refusals_total", 8},
      {"kvasir_audit_suppressed_total", 9},
      {"kvasir_tenant_held_bytes{tenant=a}", 11},
      {"kvasir_tenant_charged_bytes{tenant=a}", 12},
      {"kvasir_tenant_limit_bytes{tenant=a}", 13},
      {"kvasir_tenant_sessions{tenant=a}", 14},
      {"kvasir_tenant_sequences{tenant=a}", 15},
      {"kvasir_tenant_rows_seen{tenant=a}", 16},
      {"kvasir_tenant_rows_kept{tenant=a}", 17},
      {"kvasir_tenant_compactions_total{tenant=a}", 18},
      {"kvasir_tenant_rejected_calls_total{tenant=a}", 19},
      {"kvasir_tenant_violations_total{tenant=a}", 20},
      {"kvasir_tenant_held_bytes{tenant=b}", 9007199254740992},
      {"kvasir_prefix_hit_ratio_at{tenant=a}{times=0.125}", 0.25},
      {"kvasir_prefix_hit_ratio_at{tenant=a}{times=8}", 0.75},
      {"kvasir_tier_prefixes{tier=disk}{tenant=a}", 31},
      {"kvasir_tier_stored_bytes{tier=disk}{tenant=a}", 32},
      {"kvasir_tier_stores_total{tier=disk}{tenant=a}", 33},
      {"kvasir_tier_store_failures_total{tier=disk}{tenant=a}", 34},
      {"kvasir_tier_loads_total{tier=disk}{tenant=a}", 35},
      {"kvasir_tier_load_rows_total{tier=disk}{tenant=a}", 36},
      {"kvasir_tier_load_failures_total{tier=disk}{tenant=a}", 37},
      {"kvasir_tier_loads_declined_total{tier=disk}{tenant=a}", 38},
      {"kvasir_tier_blocks_read_total{tier=disk}{outcome=corrupt}", 39},
      {"kvasir_tier_left_out{tier=disk}", 1},
      {"kvasir_device_pool_waste_bytes{pool=gpu0}{device=GPU-1}", 41},
      {"kvasir_device_lost{pool=gpu0}{device=GPU-1}", 1},
      {"kvasir_tenant_device_charged_bytes{tenant=a}{pool=gpu0}", 42},
  };
  for (const auto& [name, value] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_EQ(found.at(name), value) << name;
  }
  EXPECT_EQ(found.size(), 1 + std::size(kDaemonMetrics) + 2 * std::size(kTenantMetrics) + 2 +
                              std::size(kStoredMetrics) + 2 + std::size(kDevicePoolMetrics) +
                              std::size(kTenantDeviceMetrics));
}

TEST(MetricsTest, NamesAreUniqueAndCountersEndInTotal) {
  std::set<std::string> names;
  for (const auto& family : CollectMetrics(Example())) {
    EXPECT_THAT(family.name, StartsWith("kvasir_"));
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_THAT(family.help, EndsWith("."));
    EXPECT_EQ(family.type == prometheus::MetricType::Counter, family.name.ends_with("_total"))
        << family.name;
  }
}

std::string Get(uint16_t port, const std::string& path) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return "";
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  if (::send(fd.get(), request.data(), request.size(), 0) < 0) return "";
  std::string answer;
  char chunk[4096];
  for (ssize_t got = 0; (got = ::recv(fd.get(), chunk, sizeof(chunk), 0)) > 0;) {
    answer.append(chunk, static_cast<size_t>(got));
  }
  return answer;
}

TEST(MetricsEndpointTest, AnswersAScrapeWithTheSnapshotOfThatMoment) {
  uint64_t held = 41;
  auto endpoint = OpenMetricsEndpoint("127.0.0.1:0", [&held] {
    StatsSnapshot snapshot = Example();
    snapshot.held_bytes = held;
    return snapshot;
  });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  ASSERT_NE((*endpoint)->port(), 0);
  EXPECT_THAT(Get((*endpoint)->port(), "/metrics"), HasSubstr("\nkvasir_held_bytes 41\n"));
  held = 42;
  const std::string answer = Get((*endpoint)->port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("\nkvasir_held_bytes 42\n"));
  EXPECT_THAT(answer, HasSubstr("# HELP kvasir_held_bytes Bytes of allocated block groups.\n"));
  EXPECT_THAT(answer, HasSubstr("kvasir_tenant_held_bytes{tenant=\"a\"} 11\n"));
}

TEST(MetricsEndpointTest, ATakenPortIsAnErrorThatNamesTheAddress) {
  auto first = OpenMetricsEndpoint("127.0.0.1:0", Example);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = OpenMetricsEndpoint(address, Example);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

}  // namespace
}  // namespace kvasir
