// The size of the pool over the sockets: larger, smaller under cached prefixes, smaller than what
// sequences hold; and smaller by itself while memory is short.
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kLayers = 16;  // 2 KiB a row

class PoolSizeTest : public DaemonFixture {
 protected:
  void SetUp() override {
    DaemonFixture::SetUp();
    if (!HasFatalFailure()) Connect();
  }
  void TearDown() override {
    session_.reset();
    v1::DropPrefixesResponse response;
    EXPECT_TRUE(Calls()
                    .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
                    .ok());
    DaemonFixture::TearDown();
  }

  void Connect() {
    session_ = DaemonFixture::Connect();
    const absl::StatusOr<ModelHandle> model = session_->RegisterModel(TinySpec(kLayers));
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *model;
  }

  RawCalls Calls() { return RawCalls(folder_.path() + "/control.sock", std::string(32, '0')); }

  grpc::Status SetPoolSize(uint64_t bytes, v1::SetPoolSizeResponse* response) {
    v1::SetPoolSizeRequest request;
    request.set_pool_bytes(bytes);
    return Calls().CallAdmin(&v1::Admin::Stub::SetPoolSize, request, response);
  }
  v1::GetStatsResponse Stats() {
    v1::GetStatsResponse stats;
    EXPECT_TRUE(Calls().CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
    return stats;
  }

  // Rows of the stream with this number; the first one tells streams apart.
  static std::vector<uint32_t> Tokens(uint64_t count, uint32_t stream) {
    std::vector<uint32_t> tokens;
    for (uint64_t i = 0; i < count; ++i) tokens.push_back(5 + static_cast<uint32_t>(i % 900));
    tokens[0] = 5 + stream;
    return tokens;
  }

  absl::StatusOr<Sequence> Written(const std::vector<uint32_t>& tokens) {
    OpenOptions options;
    options.model = model_;
    options.retention = "full";
    options.prefix = PrefixOptions{};
    options.prefix->tokens = tokens;
    absl::StatusOr<Sequence> sequence = session_->OpenSequence(options);
    while (sequence.ok() && sequence->rows() < tokens.size()) {
      const auto left = static_cast<uint32_t>(tokens.size() - sequence->rows());
      absl::StatusOr<StepView> step = sequence->Begin(left);
      if (!step.ok()) return step.status();
      WriteTestRows(*step, TinySpec(kLayers));
      const absl::Status committed =
          sequence->Commit(std::span(tokens).subspan(step->row, step->count));
      if (!committed.ok()) return committed;
    }
    return sequence;
  }

  // 2 MiB each; their session ends, so that nobody has their extents mapped.
  void StorePrefixes(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      absl::StatusOr<Sequence> sequence = Written(Tokens(1024, i));
      ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      ASSERT_TRUE(sequence->PublishPrefix().ok());
    }
    session_.reset();
    WaitFor([this] { return server_->Snapshot().tenants[0].sessions == 0; });
    Connect();
  }

  static void WaitFor(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it does not come to that";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::unique_ptr<Session> session_;
  ModelHandle model_;
};

TEST_F(PoolSizeTest, ALargerPoolHoldsAtOnceAndIsShown) {
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(96 * kMiB, &response).ok());
  EXPECT_EQ(response.asked_bytes(), 96 * kMiB);
  EXPECT_EQ(response.reached_bytes(), 96 * kMiB);
  EXPECT_EQ(response.holders_size(), 0);
  const v1::GetStatsResponse stats = Stats();
  EXPECT_EQ(stats.pool_bytes(), 96 * kMiB);
  EXPECT_EQ(stats.pool_wanted_bytes(), 96 * kMiB);
  EXPECT_EQ(stats.pool_configured_bytes(), 64 * kMiB);
  EXPECT_EQ(stats.tenants(0).host().limit_bytes(), 64 * kMiB) << "limits stay";
}

TEST_F(PoolSizeTest, SizesThatCannotBeAreRefusedWithTheirBounds) {
  v1::SetPoolSizeResponse response;
  for (const uint64_t bytes : {uint64_t{0}, 16 * kMiB - 4096, 64 * kMiB + 1, uint64_t{1} << 60}) {
    const grpc::Status status = SetPoolSize(bytes, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << bytes;
    EXPECT_THAT(status.error_message(),
                AllOf(HasSubstr("pool_bytes"), HasSubstr("min=16777216 max=70368744177664")));
  }
  const grpc::Status status = SetPoolSize(uint64_t{1} << 46, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("available_bytes="));
  EXPECT_EQ(Stats().pool_bytes(), 64 * kMiB);
}

TEST_F(PoolSizeTest, CachedPrefixesMakeRoom) {
  StorePrefixes(16);
  if (HasFatalFailure()) return;
  const v1::GetStatsResponse before = Stats();
  ASSERT_EQ(before.tenants(0).prefixes(), 16U);
  ASSERT_GT(before.charged_bytes(), 24 * kMiB);
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(16 * kMiB, &response).ok());
  EXPECT_EQ(response.reached_bytes(), 16 * kMiB);
  EXPECT_EQ(response.holders_size(), 0);
  const v1::GetStatsResponse after = Stats();
  EXPECT_EQ(after.pool_bytes(), 16 * kMiB);
  EXPECT_LE(after.charged_bytes() + after.pool_ready_bytes(), 16 * kMiB);
  EXPECT_LT(after.tenants(0).prefixes(), 16U);
  EXPECT_GT(after.tenants(0).prefixes(), 0U) << "no more went than had to";
}

TEST_F(PoolSizeTest, WhatASequenceUsesIsNeverTaken) {
  absl::StatusOr<Sequence> sequence = Written(Tokens(9000, 1));
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(16 * kMiB, &response).ok());
  EXPECT_EQ(response.asked_bytes(), 16 * kMiB);
  EXPECT_GT(response.reached_bytes(), 16 * kMiB);
  ASSERT_EQ(response.holders_size(), 1);
  EXPECT_EQ(response.holders(0).tenant(), "test");
  EXPECT_EQ(response.holders(0).sequences(), 1U);
  EXPECT_EQ(response.holders(0).host().charged_bytes(), response.reached_bytes());
  EXPECT_GT(response.holders(0).host().held_bytes(), 16 * kMiB);
  EXPECT_EQ(Written(Tokens(5000, 2)).status().code(), absl::StatusCode::kResourceExhausted);

  ASSERT_TRUE(SetPoolSize(64 * kMiB, &response).ok());
  absl::StatusOr<StepView> step = sequence->Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  WriteTestRows(*step, TinySpec(kLayers));
  EXPECT_EQ(VisibleRows(step->layers[3], step->row, 3, TinySpec(kLayers)).size(), 9001U);
}

TEST_F(PoolSizeTest, WhatComesBackLaterPaysFirst) {
  absl::StatusOr<Sequence> sequence = Written(Tokens(9000, 1));
  ASSERT_TRUE(sequence.ok());
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(16 * kMiB, &response).ok());
  sequence = absl::CancelledError();
  session_.reset();
  WaitFor([this] { return server_->Snapshot().charged_bytes == 0; });
  Connect();
  sequence = Written(Tokens(1000, 2));
  EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  sequence = absl::CancelledError();
}

// A FIFO stands for the kernel's trigger.
class MemoryPressureTest : public PoolSizeTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::mkfifo(Path("memory.pressure").c_str(), 0600), 0);
    std::ofstream(Path("memory.events")) << "low 0\nhigh 0\n";
    std::ofstream(Path("memory.high")) << "max\n";
    std::ofstream(Path("memory.current")) << "0\n";
    Config config = MakeConfig();
    config.memory.pressure = Config::Memory::Pressure::kTry;
    config.memory.pressure_dir = folder_.path();
    config.memory.pressure_quiet_ms = quiet_ms_;
    StartServer(config);
    if (!HasFatalFailure()) PoolSizeTest::Connect();
  }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  void Press() { std::ofstream(Path("memory.pressure")) << "x"; }

  uint32_t quiet_ms_ = 3'600'000;
};

TEST_F(MemoryPressureTest, CachedContentGoesStepByStepAndSequencesStay) {
  StorePrefixes(16);
  if (HasFatalFailure()) return;
  absl::StatusOr<Sequence> sequence = Written(Tokens(500, 99));
  ASSERT_TRUE(sequence.ok());
  const uint64_t touched = Stats().charged_bytes() + Stats().pool_ready_bytes();
  Press();
  WaitFor([this] { return server_->Snapshot().memory_pressure_shrinks == 1; });
  std::ofstream(Path("memory.events")) << "low 0\nhigh 1\n";  // the other source
  WaitFor([this] { return server_->Snapshot().memory_pressure_shrinks == 2; });
  v1::GetStatsResponse stats = Stats();
  EXPECT_LE(stats.pool_bytes(), touched - 16 * kMiB + 8 * kMiB);
  EXPECT_EQ(stats.pool_wanted_bytes(), 64 * kMiB);
  // The last step's work may be under way still.
  WaitFor([this] { return server_->Snapshot().charged_bytes <= server_->Snapshot().pool_bytes; });
  stats = Stats();
  EXPECT_LT(stats.tenants(0).prefixes(), 16U);
  EXPECT_EQ(stats.tenants(0).sequences(), 1U);
  absl::StatusOr<StepView> step = sequence->Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  WriteTestRows(*step, TinySpec(kLayers));
  EXPECT_EQ(VisibleRows(step->layers[2], step->row, 2, TinySpec(kLayers)).size(), 501U);
  // An operator's word ends it.
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(64 * kMiB, &response).ok());
  EXPECT_EQ(Stats().pool_bytes(), 64 * kMiB);
}

class ShortQuietTest : public MemoryPressureTest {
 protected:
  ShortQuietTest() { quiet_ms_ = 10; }
};

TEST_F(ShortQuietTest, ThePoolGrowsBackToWhatAnOperatorWants) {
  v1::SetPoolSizeResponse response;
  ASSERT_TRUE(SetPoolSize(48 * kMiB, &response).ok());
  Press();
  WaitFor([this] { return server_->Snapshot().memory_pressure_shrinks == 1; });
  WaitFor([this] { return server_->Snapshot().pool_bytes == 48 * kMiB; });
  EXPECT_EQ(Stats().pool_wanted_bytes(), 48 * kMiB);
  EXPECT_EQ(Stats().pool_configured_bytes(), 64 * kMiB);
}

}  // namespace
}  // namespace kvasir::testing
