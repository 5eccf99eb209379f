// A daemon whose Redis server answers slowly: an open waits for it within its bound and then
// computes, and whoever needs nothing of it is not delayed, of the same tenant or another.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "bench/redis_server.h"
#include "tests/faults/slow_proxy.h"
#include "tests/support/child_process.h"
#include "tests/support/eventually.h"
#include "tests/support/tier_daemon.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

constexpr uint64_t kPrompts = 3, kRows = 320;
constexpr uint32_t kOtherUid = 12001;
// What happens while an answer is held is seen only where it ends before the tier's own time-out,
// as it does unless the machine stands still: so often it is tried.
constexpr int kAttempts = 20;

std::vector<uint32_t> Prompt(uint64_t number) { return PromptOf(number, kRows); }

class TierSlowServerTest : public TierDaemonTest {
 protected:
  void SetUp() override {
    auto server = bench::RedisServer::Start({});
    if (server.status().code() == absl::StatusCode::kNotFound) {
      GTEST_SKIP() << MessageOf(server.status());
    }
    ASSERT_TRUE(server.ok()) << MessageOf(server.status());
    redis_ = *std::move(server);
    proxy_ = std::make_unique<SlowProxy>(folder_.path() + "/proxy.sock", redis_->socket());
    Config config = PlainConfig();
    config.tier.redis_servers = "unix:" + proxy_->socket();
    config.tier.redis_refresh_ms = 86'400'000;  // after the start nobody asks but who loads
    config.tier.key_file = folder_.path() + "/shared.key";
    Config::Tenant other = config.tenants[0];
    other.name = "other";
    other.uids = {kOtherUid};
    config.tenants.push_back(other);
    daemon_.config() = config;
  }
  void TearDown() override {
    if (proxy_ != nullptr) proxy_->SetPace(SlowProxy::Pace::kAtOnce);
  }

  // The prompts lie in the server, and the daemon knows of them and has nothing in memory.
  void StoreAllAndRestart() {
    ASSERT_TRUE(daemon_.Start());
    {
      absl::StatusOr<TierEngine> engine = daemon_.Connect();
      ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
      for (uint64_t number = 0; number < kPrompts; ++number) {
        const absl::Status published = engine->Publish(Prompt(number));
        ASSERT_TRUE(published.ok()) << MessageOf(published);
      }
    }
    daemon_.Stop();
    Restart();
  }
  void Restart() {
    ASSERT_TRUE(daemon_.Start());
    ASSERT_TRUE(Eventually([&] { return daemon_.PrefixesIn("remote") == kPrompts; }));
    ASSERT_EQ(daemon_.PrefixesIn("memory"), 0U);
  }
  uint64_t Found(uint64_t number) const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    if (!engine.ok()) return 0;
    const absl::StatusOr<uint64_t> rows = engine->AttachedRows(Prompt(number));
    EXPECT_TRUE(rows.ok()) << MessageOf(rows.status());
    return rows.value_or(0);
  }
  void ExpectGoesOn() const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    const absl::Status published = engine->Publish(PromptOf(99, kRows));
    ASSERT_TRUE(published.ok()) << MessageOf(published);
    EXPECT_EQ(engine->AttachedRows(PromptOf(99, kRows)).value_or(0), kRows);
  }
  // The same by a process of the other tenant's user.
  void ExpectOtherTenantGoesOn() const {
    const std::string uid = std::to_string(kOtherUid);
    ChildProcess actor({"/usr/bin/setpriv", "--reuid=" + uid, "--regid=" + uid, "--clear-groups",
                        "--", folder_.path() + "/tier_actor", daemon_.server().control_socket,
                        daemon_.server().data_socket, "7", std::to_string(kRows)},
                       {});
    const std::optional<std::string> line = actor.ReadLine();
    const std::string errors = actor.ReadErrors();
    EXPECT_EQ(actor.Wait(), 0) << errors;
    EXPECT_EQ(line.value_or(""), std::to_string(kRows)) << errors;
  }
  uint64_t Counted(const std::function<uint64_t(const v1::TierTenant&)>& count) const {
    const v1::TierInfo tier = daemon_.Tier();
    uint64_t sum = 0;
    for (const v1::TierTenant& tenant : tier.tenants()) sum += count(tenant);
    return sum;
  }
  uint64_t Loads() const {
    return Counted([](const v1::TierTenant& tenant) { return tenant.loads(); });
  }

  // One open waits for the server's answer, which does not come, while `meanwhile` runs; true when
  // it waited still at the end of that.
  bool WaitsMeanwhile(const std::function<void()>& meanwhile) {
    proxy_->SetPace(SlowProxy::Pace::kHeld);
    std::atomic<bool> done{false};
    std::thread waiting([&] {
      (void)Found(0);
      done = true;
    });
    EXPECT_TRUE(Eventually([&] { return proxy_->Waiting() > 0 || done; }));
    meanwhile();
    const bool waited = !done && proxy_->Waiting() > 0;
    proxy_->SetPace(SlowProxy::Pace::kAtOnce);
    waiting.join();
    return waited;
  }

  std::unique_ptr<bench::RedisServer> redis_;
  std::unique_ptr<SlowProxy> proxy_;
  TierDaemon daemon_{folder_.path(), Config()};
};

TEST_F(TierSlowServerTest, AnAnswerThatDoesNotComeDelaysNobodyElse) {
  if (::geteuid() == 0) {  // the other user may come in, and the build may be private
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    std::filesystem::copy_file(SiblingProgram("tier_actor"), folder_.path() + "/tier_actor");
  }
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  bool waited = false;
  for (int attempt = 0; attempt < kAttempts && !waited && !HasFailure(); ++attempt) {
    if (attempt > 0) {
      daemon_.Kill();  // so that the server has nothing new
      ASSERT_NO_FATAL_FAILURE(Restart());
    }
    waited = WaitsMeanwhile([&] {
      ExpectGoesOn();
      if (::geteuid() == 0) ExpectOtherTenantGoesOn();
      EXPECT_EQ(daemon_.PrefixesIn("remote"), kPrompts);
      EXPECT_EQ(Loads(), 0U);
    });
  }
  EXPECT_TRUE(waited);
  EXPECT_EQ(Found(0), kRows);  // that of the one who waited, or another
  EXPECT_EQ(daemon_.Stats().tenants(1).sequences(), 0U);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierSlowServerTest, AnOpenComputesWhenItsBoundIsOver) {
  daemon_.config().tier.load_wait_ms = 50;
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  bool waited = false;
  for (int attempt = 0; attempt < kAttempts && !waited && !HasFailure(); ++attempt) {
    if (attempt > 0) {
      daemon_.Kill();  // so that the server has nothing new
      ASSERT_NO_FATAL_FAILURE(Restart());
    }
    proxy_->SetPace(SlowProxy::Pace::kHeld);
    EXPECT_EQ(Found(0), 0U);
    waited = proxy_->Waiting() > 0 && Loads() == 0;
    proxy_->SetPace(SlowProxy::Pace::kAtOnce);
  }
  EXPECT_TRUE(waited);  // the server, when the open was answered
  EXPECT_EQ(Counted([](const v1::TierTenant& tenant) { return tenant.loads_declined(); }), 1U);
  // What comes up late is for the next one.
  EXPECT_TRUE(Eventually([&] { return Loads() == 1; }));
  EXPECT_EQ(Found(0), kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierSlowServerTest, AnOpenKeepsHalfOfItsTimeForWhatFollows) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  proxy_->SetPace(SlowProxy::Pace::kHeld);
  // Less than the server is given by the tier: without the bound the call would be over time.
  absl::StatusOr<TierEngine> engine = daemon_.Connect(2, std::chrono::seconds(4));
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  const absl::StatusOr<uint64_t> rows = engine->AttachedRows(Prompt(0));
  ASSERT_TRUE(rows.ok()) << MessageOf(rows.status());
  EXPECT_EQ(*rows, 0U);
  proxy_->SetPace(SlowProxy::Pace::kAtOnce);
  engine = absl::CancelledError("");  // its session ends
  EXPECT_TRUE(Eventually([&] { return Found(0) == kRows; }));
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierSlowServerTest, ATrickleIsAMissByItsCause) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  const uint64_t before = proxy_->answered();
  proxy_->SetPace(SlowProxy::Pace::kTrickle);
  EXPECT_EQ(Found(0), 0U);
  EXPECT_GT(proxy_->answered(), before);  // it did answer
  EXPECT_GT(daemon_.Tier().reads().at("timeout"), 0U);
  EXPECT_EQ(Counted([](const v1::TierTenant& tenant) { return tenant.load_failures(); }), 1U);
  EXPECT_EQ(daemon_.PrefixesIn("remote"), kPrompts);
  ExpectGoesOn();
  proxy_->SetPace(SlowProxy::Pace::kAtOnce);
  EXPECT_TRUE(Eventually([&] { return Found(0) == kRows; }));
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierSlowServerTest, AStopDoesNotWaitForAServerBeyondItsBound) {
  daemon_.config().tier.stop_drain_ms = 100;
  ASSERT_TRUE(daemon_.Start());
  {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    ASSERT_TRUE(engine->Publish(Prompt(0)).ok());
  }
  proxy_->SetPace(SlowProxy::Pace::kHeld);
  daemon_.Stop();
  EXPECT_EQ(proxy_->Waiting(), 0U);  // it has hung up
  proxy_->SetPace(SlowProxy::Pace::kAtOnce);
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(0), 0U);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

}  // namespace
}  // namespace kvasir::testing
