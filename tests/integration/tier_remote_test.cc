// Two daemons with one Redis server between them: what one drains the other finds, and a server
// that is gone, empty, hung or closed to a daemon is a miss.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "bench/redis_server.h"
#include "tests/support/eventually.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {
namespace {

constexpr uint64_t kPrompts = 3;
constexpr uint64_t kRows = 320;

std::vector<uint32_t> Prompt(uint64_t number) { return PromptOf(number, kRows); }

class TierRemoteTest : public TierDaemonTest {
 protected:
  void SetUp() override { StartRedis({}); }

  void StartRedis(const bench::RedisServer::Options& options) {
    auto server = bench::RedisServer::Start(options);
    if (server.status().code() == absl::StatusCode::kNotFound) {
      GTEST_SKIP() << MessageOf(server.status());
    }
    ASSERT_TRUE(server.ok()) << MessageOf(server.status());
    redis_ = *std::move(server);
    writer_.config() = reader_.config() = RemoteConfig();
    reader_.config().server.control_socket = other_folder_.path() + "/control.sock";
    reader_.config().server.data_socket = other_folder_.path() + "/data.sock";
  }

  Config RemoteConfig() const {
    Config config = PlainConfig();
    config.tier.redis_servers = "unix:" + redis_->socket();
    config.tier.redis_refresh_ms = 200;
    config.tier.key_file = folder_.path() + "/shared.key";
    return config;
  }

  // `writer_` publishes the prompts and drains them.
  void WriteAll() {
    ASSERT_TRUE(writer_.Start());
    absl::StatusOr<TierEngine> engine = writer_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    for (uint64_t number = 0; number < kPrompts; ++number) {
      const absl::Status published = engine->Publish(Prompt(number));
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
    const absl::Status drained = writer_.Drain();
    ASSERT_TRUE(drained.ok()) << MessageOf(drained);
    EXPECT_EQ(writer_.PrefixesIn("remote"), kPrompts);
  }
  bool KnowsAll(const TierDaemon& daemon) const {
    return Eventually([&] { return daemon.PrefixesIn("remote") == kPrompts; });
  }
  // Both run, and `reader_` knows what is there.
  void WriteAllAndRead() {
    ASSERT_NO_FATAL_FAILURE(WriteAll());
    ASSERT_TRUE(reader_.Start());
    ASSERT_TRUE(KnowsAll(reader_));
  }
  // Rows of the prompt that a new session of the reader has, all of them right.
  uint64_t Found(uint64_t number) const {
    absl::StatusOr<TierEngine> engine = reader_.Connect();
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    if (!engine.ok()) return 0;
    const absl::StatusOr<uint64_t> rows = engine->AttachedRows(Prompt(number));
    EXPECT_TRUE(rows.ok()) << MessageOf(rows.status());
    return rows.value_or(0);
  }
  // The reader computes, keeps and finds what no server has a part in.
  void ExpectGoesOn() const {
    absl::StatusOr<TierEngine> engine = reader_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    const std::vector<uint32_t> prompt = PromptOf(99, kRows);
    const absl::Status published = engine->Publish(prompt);
    ASSERT_TRUE(published.ok()) << MessageOf(published);
    EXPECT_EQ(engine->AttachedRows(prompt).value_or(0), kRows);
  }
  bool IsLeftOut() const {
    return Eventually([&] { return reader_.Tier().left_out(); });
  }
  bool IsBack() const {
    return Eventually([&] { return !reader_.Tier().left_out(); });
  }

  TemporaryFolder other_folder_;
  std::unique_ptr<bench::RedisServer> redis_;
  TierDaemon writer_{folder_.path(), Config()};
  TierDaemon reader_{other_folder_.path(), Config()};
};

TEST_F(TierRemoteTest, WhatOneDrainsTheOtherFinds) {
  ASSERT_TRUE(reader_.Start());
  EXPECT_EQ(Found(0), 0U);
  ASSERT_NO_FATAL_FAILURE(WriteAll());
  ASSERT_TRUE(KnowsAll(reader_));
  for (uint64_t number = 0; number < kPrompts; ++number) EXPECT_EQ(Found(number), kRows);
  const v1::TierInfo tier = reader_.Tier();
  EXPECT_EQ(tier.tier(), "remote");
  EXPECT_FALSE(tier.left_out());
  ASSERT_EQ(tier.tenants_size(), 1);
  EXPECT_EQ(tier.tenants(0).loads(), kPrompts);
  EXPECT_EQ(tier.tenants(0).stores(), 0U);
  writer_.Kill();
  reader_.Stop();
  ASSERT_TRUE(reader_.Start());  // with nothing of its own
  ASSERT_TRUE(KnowsAll(reader_));
  EXPECT_EQ(Found(1), kRows);
}

TEST_F(TierRemoteTest, AnotherKeyFindsNothing) {
  ASSERT_NO_FATAL_FAILURE(WriteAll());
  reader_.config().tier.key_file = other_folder_.path() + "/own.key";
  ASSERT_TRUE(reader_.Start());
  ExpectGoesOn();
  ASSERT_TRUE(reader_.Drain().ok());
  // It has been to the server, and what the other wrote is not its.
  EXPECT_EQ(reader_.PrefixesIn("remote"), 1U);
  EXPECT_EQ(Found(0), 0U);
  EXPECT_EQ(writer_.PrefixesIn("remote"), kPrompts);
}

TEST_F(TierRemoteTest, ADeadServerIsAMissAndLeftOut) {
  ASSERT_NO_FATAL_FAILURE(WriteAllAndRead());
  redis_->Kill();
  EXPECT_EQ(Found(0), 0U);
  ExpectGoesOn();
  EXPECT_TRUE(IsLeftOut());
  EXPECT_EQ(Found(1), 0U);

  ASSERT_TRUE(redis_->Restart().ok());  // empty
  ASSERT_TRUE(IsBack());
  EXPECT_EQ(Found(2), 0U);
  ExpectGoesOn();
  // It takes blocks again.
  EXPECT_TRUE(Eventually([&] { return reader_.Drain().ok(); }));
}

TEST_F(TierRemoteTest, AServerThatForgotIsAMissAndThenWrittenAgain) {
  ASSERT_NO_FATAL_FAILURE(WriteAllAndRead());
  ASSERT_TRUE(redis_->Restart().ok());
  EXPECT_EQ(Found(0), 0U);
  // What was not there is not looked for a second time.
  EXPECT_TRUE(Eventually([&] {
    (void)Found(0);
    return reader_.PrefixesIn("remote") < kPrompts;
  }));
  absl::StatusOr<TierEngine> engine = reader_.Connect();
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  ASSERT_TRUE(engine->Publish(Prompt(0)).ok());
  ASSERT_TRUE(Eventually([&] { return reader_.Drain().ok(); }));
  reader_.Kill();
  ASSERT_TRUE(reader_.Start());
  ASSERT_TRUE(Eventually([&] { return reader_.PrefixesIn("remote") == 1; }));
  EXPECT_EQ(Found(0), kRows);
}

TEST_F(TierRemoteTest, AHungServerIsAMiss) {
  ASSERT_NO_FATAL_FAILURE(WriteAllAndRead());
  redis_->Signal(SIGSTOP);
  EXPECT_EQ(Found(0), 0U);
  ExpectGoesOn();
  EXPECT_TRUE(IsLeftOut());
  redis_->Signal(SIGCONT);
  ASSERT_TRUE(IsBack());
  EXPECT_TRUE(Eventually([&] { return Found(0) == kRows; }));
}

TEST_F(TierRemoteTest, AWrongPasswordIsAMiss) {
  ASSERT_NO_FATAL_FAILURE(StartRedis({.password = "open sesame"}));
  const std::string good = folder_.path() + "/password", bad = other_folder_.path() + "/password";
  std::ofstream(good) << "open sesame\n";
  std::ofstream(bad) << "open barley\n";
  writer_.config().tier.redis_password_file = good;
  reader_.config().tier.redis_password_file = bad;
  ASSERT_NO_FATAL_FAILURE(WriteAll());
  ASSERT_TRUE(reader_.Start());
  EXPECT_TRUE(IsLeftOut());
  EXPECT_EQ(reader_.PrefixesIn("remote"), 0U);
  EXPECT_EQ(Found(0), 0U);
  ExpectGoesOn();
  reader_.Stop();
  reader_.config().tier.redis_password_file = good;
  ASSERT_TRUE(reader_.Start());
  ASSERT_TRUE(KnowsAll(reader_));
  EXPECT_EQ(Found(0), kRows);
}

}  // namespace
}  // namespace kvasir::testing
