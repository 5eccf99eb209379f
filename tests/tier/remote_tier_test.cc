// What is the remote tier's own: servers that die, hang, forget, refuse, lie and take their time.
#include "allocator/tier/remote_tier.h"

#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allocator/tier/block_header.h"
#include "allocator/tier/guarded_tier.h"
#include "allocator/tier/rendezvous_tier.h"
#include "bench/redis_server.h"
#include "tests/tier/fake_tier.h"
#include "tests/tier/scripted_server.h"
#include "tests/tier/tier_blocks.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

namespace kvasir::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr size_t kBytes = 100'000;

RemoteTierOptions OptionsFor(const std::string& socket) {
  RemoteTierOptions options;
  options.server.unix_path = socket;
  options.fingerprint = kFingerprint;
  return options;
}

std::unique_ptr<RemoteTier> Make(const RemoteTierOptions& options) {
  auto tier = RemoteTier::Create(options);
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

std::unique_ptr<bench::RedisServer> StartRedis(const bench::RedisServer::Options& options = {}) {
  auto server = bench::RedisServer::Start(options);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

TEST(RemoteTierTest, ADeadServersBlocksAreMissesAndItComesBackEmpty) {
  const auto server = StartRedis();
  const auto tier = Make(OptionsFor(server->socket()));
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  server->Kill();
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "failed");
  EXPECT_TRUE(absl::IsUnavailable(WriteBlock(*tier, 2, kBytes)));
  const TierKey key = KeyOf(1);
  EXPECT_FALSE(tier->Erase(std::span(&key, 1)).ok());
  EXPECT_FALSE(tier->ForEach([](const TierKey&, uint64_t) {}).ok());
  ASSERT_EQ(server->Restart(), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "absent");
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
}

TEST(RemoteTierTest, ARestartBetweenTwoCallsIsNotNoticed) {
  const auto server = StartRedis();
  const auto tier = Make(OptionsFor(server->socket()));
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  ASSERT_EQ(server->Restart(), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "absent");
}

TEST(RemoteTierTest, AServerThatHangsIsATimeOutAndNoAnswerIsTakenForAnother) {
  const auto server = StartRedis();
  RemoteTierOptions options = OptionsFor(server->socket());
  options.batch_timeout = milliseconds(50);
  const auto tier = Make(options);
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  ASSERT_EQ(WriteBlock(*tier, 2, kBytes), absl::OkStatus());
  server->Signal(SIGSTOP);
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "timeout");
  EXPECT_TRUE(absl::IsDeadlineExceeded(WriteBlock(*tier, 3, kBytes)));
  server->Signal(SIGCONT);
  // The late answer for block 1 belongs to a connection that is gone.
  options.batch_timeout = milliseconds(5000);
  EXPECT_EQ(OutcomeOf(*Make(options), 2, kBytes), "hit");
}

TEST(RemoteTierTest, AHungServerOfThreeCostsItsShareAndOneWait) {
  std::vector<std::unique_ptr<bench::RedisServer>> servers;
  std::vector<NamedTier> tiers;
  FakeClock clock;
  for (int i = 0; i < 3; ++i) {
    servers.push_back(StartRedis());
    RemoteTierOptions options = OptionsFor(servers.back()->socket());
    options.batch_timeout = milliseconds(i == 0 ? 50 : 5000);
    tiers.push_back(
        {options.server.Name(),
         std::make_unique<GuardedTier>(Make(options), GuardOptions{.failures_max = 1}, clock)});
  }
  const auto tier = *RendezvousTier::Create(std::move(tiers));
  for (uint64_t number = 0; number < 30; ++number) {
    ASSERT_EQ(WriteBlock(*tier, number, kBytes), absl::OkStatus());
  }
  servers[0]->Signal(SIGSTOP);
  size_t timeouts = 0;
  for (uint64_t number = 0; number < 30; ++number) {
    const std::string outcome = OutcomeOf(*tier, number, kBytes);
    if (tier->TierOf(KeyOf(number)) != 0) {
      EXPECT_EQ(outcome, "hit");
    } else if (outcome == "timeout") {
      ++timeouts;
    } else {
      EXPECT_EQ(outcome, "failed");
    }
  }
  EXPECT_EQ(timeouts, 1U);
  servers[0]->Signal(SIGCONT);
}

TEST(RemoteTierTest, NeedsTheRightPassword) {
  const auto server = StartRedis({.password = "open sesame"});
  RemoteTierOptions options = OptionsFor(server->socket());
  for (const char* password : {"", "open barley"}) {
    options.server.password = password;
    const auto tier = Make(options);
    const absl::Status status = WriteBlock(*tier, 1, kBytes);
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_EQ(std::string(status.message()).find("barley"), std::string::npos);
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "failed");
  }
  options.server.password = "open sesame";
  const auto tier = Make(options);
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
}

// A value as the server has it, to damage it.
class ValueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    context_ = ::redisConnectUnix(server_->socket().c_str());
    ASSERT_EQ(context_->err, 0);
    ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
    ASSERT_EQ(WriteBlock(*tier_, 2, kBytes), absl::OkStatus());
  }
  void TearDown() override { ::redisFree(context_); }
  std::string Name(uint64_t number) const {
    return fmt::format("kvasir:{:016x}:", kFingerprint) + std::string(KeyOf(number).view());
  }
  std::string Get(uint64_t number) {
    const std::string name = Name(number);
    auto* reply =
        static_cast<redisReply*>(::redisCommand(context_, "GET %b", name.data(), name.size()));
    std::string value(reply->str, reply->len);
    ::freeReplyObject(reply);
    return value;
  }
  void Set(uint64_t number, const std::string& value) {
    const std::string name = Name(number);
    ::freeReplyObject(::redisCommand(context_, "SET %b %b", name.data(), name.size(), value.data(),
                                     value.size()));
  }
  // The read says `cause`, the block is forgotten, and it can be written anew.
  void ExpectDamage(const std::string& value, const std::string& cause) {
    Set(1, value);
    EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), cause);
    EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "absent");
    ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
    EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "hit");
    EXPECT_EQ(OutcomeOf(*tier_, 2, kBytes), "hit");
  }

  std::unique_ptr<bench::RedisServer> server_ = StartRedis();
  std::unique_ptr<RemoteTier> tier_ = Make(OptionsFor(server_->socket()));
  redisContext* context_ = nullptr;
};

TEST_F(ValueTest, NamesTheCauseOfDamageAndForgetsTheBlock) {
  const std::string value = Get(1);
  ASSERT_EQ(value.size(), kBlockHeaderBytes + kBytes);
  const auto flipped = [&value](size_t at) {
    std::string damaged = value;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    return damaged;
  };
  ExpectDamage(flipped(0), "corrupt");
  ExpectDamage(flipped(8), "old_version");
  ExpectDamage(flipped(16), "foreign_format");
  ExpectDamage(flipped(30), "foreign_key");
  ExpectDamage(flipped(120), "corrupt");
  ExpectDamage(flipped(128), "corrupt");
  ExpectDamage(flipped(value.size() - 1), "corrupt");
  ExpectDamage(Get(2), "foreign_key");
  ExpectDamage("", "cut");
  ExpectDamage(value.substr(0, 127), "cut");
  ExpectDamage(value.substr(0, 128), "cut");
  ExpectDamage(value.substr(0, value.size() - 1), "cut");
  ExpectDamage(value + "x", "corrupt");
}

TEST_F(ValueTest, KeysOfAnotherKindFailAndOthersAreNotListed) {
  ::freeReplyObject(::redisCommand(context_, "SET kvasir:someone-else x"));
  ::freeReplyObject(::redisCommand(context_, "SET %s%s x", Name(1).substr(0, 24).c_str(), "short"));
  std::vector<TierKey> listed;
  ASSERT_EQ(tier_->ForEach([&](const TierKey& key, uint64_t) { listed.push_back(key); }),
            absl::OkStatus());
  EXPECT_THAT(listed, ::testing::UnorderedElementsAre(KeyOf(1), KeyOf(2)));
  const std::string name = Name(3);
  ::freeReplyObject(::redisCommand(context_, "LPUSH %b x", name.data(), name.size()));
  EXPECT_EQ(OutcomeOf(*tier_, 3, kBytes), "failed");
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "hit");
}

TEST(LyingServerTest, AnAnswerThatIsNotTheProtocolFailsAndNothingElse) {
  const std::string head(128, 'x');
  for (const std::string& answer :
       {std::string("hello\r\n"), std::string("$-2\r\n"), std::string("$999999999999\r\n"),
        std::string("$12x\r\n"), std::string("\r\n"), std::string("*1\r\n$1\r\nx\r\n"),
        std::string(100'000, 'a'), "$128\r\n" + head + "zz", std::string("$3\r\nab"),
        std::string(":5\r\n"), std::string("+OK\r\n"), std::string("-ERR \x1b[31m\r\n")}) {
    const ScriptedServer server(answer, 0);
    const auto tier = Make(OptionsFor(server.socket()));
    const std::string outcome = OutcomeOf(*tier, 1, kBytes);
    EXPECT_EQ(outcome, "failed") << answer.substr(0, 20);
    EXPECT_FALSE(WriteBlock(*tier, 1, kBytes).ok());
  }
}

TEST(LyingServerTest, AnArrayThatIsOnlySaidToBeLongTakesNoMemory) {
  // The second one says so at every level.
  for (const std::string& answer :
       {std::string("*2147483647\r\n"), std::string("*1000000\r\n*1000000\r\n")}) {
    const ScriptedServer server(answer, 0);
    const auto tier = Make(OptionsFor(server.socket()));
    const absl::Status listed = tier->ForEach([](const TierKey&, uint64_t) {});
    EXPECT_EQ(listed.code(), absl::StatusCode::kDataLoss) << listed.ToString();
    EXPECT_THAT(std::string(listed.message()), HasSubstr("max=1048576"));
  }
}

TEST(LyingServerTest, TextOfTheServerIsCutAndPrintable) {
  const ScriptedServer server("-ERR \x1b[31m" + std::string(3000, 'e') + "\r\n", 0);
  const absl::Status status = WriteBlock(*Make(OptionsFor(server.socket())), 1, kBytes);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ERR ?[31m"));
  EXPECT_LT(status.message().size(), 300U);
}

TEST(SlowServerTest, ABlockThatComesByteByByteIsWhole) {
  BlockChecksum checksum;
  const std::vector<std::byte> payload = BytesFor(1, 3000);
  const std::span<const std::byte> part(payload);
  const BlockHeader header = SealHeader(kFingerprint, KeyOf(1), std::span(&part, 1), checksum);
  std::string answer = fmt::format("${}\r\n", header.size() + payload.size());
  answer.append(reinterpret_cast<const char*>(header.data()), header.size());
  answer.append(reinterpret_cast<const char*>(payload.data()), payload.size());
  answer += "\r\n";
  for (const size_t piece : {1U, 7U, 129U}) {
    const ScriptedServer server(answer, piece);
    EXPECT_EQ(OutcomeOf(*Make(OptionsFor(server.socket())), 1, 3000), "hit");
  }
}

TEST(RemoteTierTest, RefusesOptionsOutOfBoundsByName) {
  const auto refused = [](const RemoteTierOptions& options) {
    return std::string(RemoteTier::Create(options).status().message());
  };
  const RemoteTierOptions good = OptionsFor("/tmp/socket");
  RemoteTierOptions options = good;
  options.server.host = "also-a-host";
  EXPECT_THAT(refused(options), HasSubstr("host=also-a-host"));
  options = good;
  options.server.unix_path = "relative";
  EXPECT_THAT(refused(options), HasSubstr("unix_path=relative"));
  options = good;
  options.connect_timeout = milliseconds(0);
  EXPECT_THAT(refused(options), HasSubstr("connect_timeout_ms=0"));
  options = good;
  options.batch_timeout = milliseconds(600'001);
  EXPECT_THAT(refused(options), HasSubstr("batch_timeout_ms=600001"));
  options = good;
  options.requests_in_flight = 0;
  EXPECT_THAT(refused(options), HasSubstr("requests_in_flight=0"));
}

}  // namespace
}  // namespace kvasir::testing
