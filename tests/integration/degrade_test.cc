// Degrade before evict, over the sockets: a prefix that is made smaller by the daemon's own threads
// is found by who says least_quality, and operators see what it is.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kLayers = 3;
constexpr char kCompacted[] = "sepllm:form=static,init_cache_size=4,local_size=32";

class DegradeTest : public DaemonFixture {
 protected:
  // A hundredth of the limit are 13 blocks of 16 rows.
  void SetUp() override { Start({kCompacted}, 3); }

  void Start(std::vector<std::string> ladder, uint32_t high_percent) {
    Config config = MakeConfig();
    config.tenants[0].limit_bytes = 16 * kMiB;
    config.tenants[0].degrade = std::move(ladder);
    config.tier.write_down_high_percent = high_percent;
    config.tier.write_down_low_percent = high_percent - 1;
    StartServer(config);
  }

  void TearDown() override {
    v1::DropPrefixesResponse response;
    EXPECT_TRUE(
        calls_.CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
            .ok());
    DaemonFixture::TearDown();
  }

  static std::vector<uint32_t> Tokens(uint64_t count) {
    std::vector<uint32_t> tokens;
    for (uint64_t i = 0; i < count; ++i) {
      tokens.push_back(i % 50 == 7 ? 1 : 5 + static_cast<uint32_t>(i * i % 900));
    }
    return tokens;
  }

  OpenOptions With(const ModelHandle& model, const std::vector<uint32_t>& tokens,
                   const std::string& retention = "full") {
    OpenOptions options;
    options.model = model;
    options.retention = retention;
    options.reads_records = true;
    options.prefix = PrefixOptions{};
    options.prefix->tokens = tokens;
    return options;
  }

  static void Write(Sequence& sequence, const std::vector<uint32_t>& tokens) {
    const ModelSpec spec = TinySpec(kLayers);
    while (sequence.rows() < tokens.size()) {
      absl::StatusOr<StepView> step =
          sequence.Begin(static_cast<uint32_t>(tokens.size() - sequence.rows()));
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, spec);
      const absl::Status committed =
          sequence.Commit(std::span(tokens).subspan(step->row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
  }

  // An engine that publishes the tokens as `full` and goes at once.
  void Store(const std::vector<uint32_t>& tokens) {
    const std::unique_ptr<Session> session = Connect();
    absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(kLayers));
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session->OpenSequence(With(*model, tokens));
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    Write(*sequence, tokens);
    const absl::StatusOr<Sequence::Published> published = sequence->PublishPrefix();
    ASSERT_TRUE(published.ok()) << MessageOf(published.status());
  }

  // The daemon's threads are at it.
  void WaitForCondensings(uint64_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (server_->Snapshot().tenants[0].condensings < count) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      ASSERT_EQ(server_->Snapshot().tenants[0].condensing_failures, 0U);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::vector<uint64_t> VisibleNext(Sequence& sequence, uint32_t layer) {
    absl::StatusOr<StepView> step = sequence.Begin(1);
    EXPECT_TRUE(step.ok()) << MessageOf(step.status());
    if (!step.ok()) return {};
    WriteTestRows(*step, TinySpec(kLayers));
    return VisibleRows(step->layers[layer], step->row, layer, TinySpec(kLayers));
  }

  RawCalls calls_{folder_.path() + "/control.sock", std::string(32, '0')};
};

TEST_F(DegradeTest, WhatIsMadeSmallerIsFoundByWhoAsksForIt) {
  const std::vector<uint32_t> tokens = Tokens(700);
  Store(tokens);
  if (HasFatalFailure()) return;
  WaitForCondensings(1);
  const std::unique_ptr<Session> session = Connect();
  absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(kLayers));
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  const absl::StatusOr<std::vector<PrefixForm>> forms =
      session->MatchPrefix(*model, {tokens, {}, "", 0, std::nullopt});
  ASSERT_TRUE(forms.ok()) << MessageOf(forms.status());
  ASSERT_EQ(forms->size(), 1U);
  EXPECT_EQ((*forms)[0].rows, 688U);
  EXPECT_EQ((*forms)[0].quality, PrefixQuality::kCompacted);
  EXPECT_THAT((*forms)[0].retention, HasSubstr("sepllm:form=static"));
  EXPECT_EQ((*forms)[0].condensed_from, "full");

  for (const std::string retention : {"full", kCompacted}) {
    absl::StatusOr<Sequence> exact = session->OpenSequence(With(*model, tokens, retention));
    ASSERT_TRUE(exact.ok()) << MessageOf(exact.status());
    EXPECT_EQ(exact->rows(), 0U) << retention;
    EXPECT_EQ(exact->condensed_from(), "");
  }
  OpenOptions options = With(*model, tokens);
  options.prefix->least_quality = PrefixQuality::kCompacted;
  absl::StatusOr<Sequence> sequence = session->OpenSequence(options);
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  ASSERT_EQ(sequence->rows(), 688U);
  EXPECT_THAT(sequence->retention(), HasSubstr("sepllm:form=static"));
  EXPECT_EQ(sequence->condensed_from(), "full");
  // The rows that an engine under this retention sees, K and V as they were written.
  absl::StatusOr<Sequence> reference = session->OpenSequence(With(*model, tokens, kCompacted));
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  Write(*reference, {tokens.begin(), tokens.begin() + 688});
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const std::vector<uint64_t> seen = VisibleNext(*sequence, layer);
    EXPECT_EQ(seen, VisibleNext(*reference, layer));
    EXPECT_LT(seen.size(), 60U);
    EXPECT_GT(seen.size(), 45U);
  }
}

// Layers of other settings are lanes of their own.
TEST_F(DegradeTest, LayersWithSettingsOfTheirOwnAreMadeSmallerApart) {
  Start({"streamingllm:start_size=4,recent_size=20/70/33,positions=original"}, 3);
  const std::vector<uint32_t> tokens = Tokens(700);
  Store(tokens);
  if (HasFatalFailure()) return;
  WaitForCondensings(1);
  const std::unique_ptr<Session> session = Connect();
  absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(kLayers));
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  OpenOptions options = With(*model, tokens);
  options.prefix->least_quality = PrefixQuality::kCompacted;
  absl::StatusOr<Sequence> sequence = session->OpenSequence(options);
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  ASSERT_EQ(sequence->rows(), 688U);
  absl::StatusOr<StepView> step = sequence->Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  WriteTestRows(*step, TinySpec(kLayers));
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const uint64_t window = layer == 0 ? 20 : layer == 1 ? 70 : 33;
    std::vector<uint64_t> rows = {0, 1, 2, 3};
    for (uint64_t row = 689 - window; row <= 688; ++row) rows.push_back(row);
    EXPECT_EQ(VisibleRows(step->layers[layer], 688, layer, TinySpec(kLayers)), rows);
  }
}

TEST_F(DegradeTest, OperatorsSeeWhatItIs) {
  const auto channel = grpc::CreateChannel("unix:" + folder_.path() + "/control.sock",
                                           grpc::InsecureChannelCredentials());
  const auto admin = v1::Admin::NewStub(channel);
  const std::vector<uint32_t> tokens = Tokens(700);
  Store(tokens);
  if (HasFatalFailure()) return;
  WaitForCondensings(1);
  v1::ListPrefixesResponse prefixes;
  ASSERT_TRUE(
      calls_.CallAdmin(&v1::Admin::Stub::ListPrefixes, v1::ListPrefixesRequest(), &prefixes).ok());
  ASSERT_EQ(prefixes.prefixes_size(), 1);
  EXPECT_EQ(prefixes.prefixes(0).condensed_from(), "full");
  EXPECT_THAT(prefixes.prefixes(0).retention(), HasSubstr("sepllm"));
  v1::GetStatsResponse stats;
  ASSERT_TRUE(calls_.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  EXPECT_EQ(stats.tenants(0).condensings(), 1U);
  EXPECT_EQ(stats.tenants(0).condensed_rows(), 688U);
  EXPECT_GT(stats.tenants(0).condensed_bytes(), 3 * stats.tenants(0).prefix_bytes());
  EXPECT_EQ(stats.tenants(0).sequences(), 0U);

  grpc::ClientContext context;
  v1::WatchPrefixesRequest request;
  request.set_from_number(1);
  const auto reader = admin->WatchPrefixes(&context, request);
  v1::PrefixEvent event;
  for (const v1::PrefixEvent::Kind kind :
       {v1::PrefixEvent::KIND_STORED, v1::PrefixEvent::KIND_STORED,
        v1::PrefixEvent::KIND_DEGRADED}) {
    ASSERT_TRUE(reader->Read(&event));
    EXPECT_EQ(event.kind(), kind);
    EXPECT_EQ(event.condensed_from(), event.entry() == 2 ? "full" : "");
  }
  EXPECT_EQ(event.entry(), 1U);
  EXPECT_EQ(event.keys_size(), 43);
  context.TryCancel();
  (void)reader->Finish();

  const std::unique_ptr<Session> session = Connect();
  absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(kLayers));
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  { ASSERT_TRUE(session->OpenSequence(With(*model, tokens)).ok()); }
  v1::ListPrefixLookupsResponse lookups;
  ASSERT_TRUE(
      calls_
          .CallAdmin(&v1::Admin::Stub::ListPrefixLookups, v1::ListPrefixLookupsRequest(), &lookups)
          .ok());
  const v1::PrefixLookup& last = lookups.lookups(lookups.lookups_size() - 1);
  EXPECT_EQ(last.cause(), "degraded");
  EXPECT_THAT(last.nearest(), HasSubstr("condensed from full"));
  EXPECT_EQ(last.nearest_rows(), 688U);
}

// Sessions that publish, ask for any quality and go, while the daemon makes smaller what it can;
// the rows that are seen are the right ones, and the daemon ends amid it.
TEST_F(DegradeTest, ManySessionsWhilePrefixesBecomeSmaller) {
  Start({"streamingllm:start_size=4,recent_size=32,positions=original"}, 10);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t round = 0; round < 12; ++round) {
        const std::unique_ptr<Session> session = Connect();
        absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(kLayers));
        ASSERT_TRUE(model.ok()) << MessageOf(model.status());
        std::vector<uint32_t> tokens = Tokens(200 + (t * 7 + round * 31) % 300);
        tokens[20 + (t * 5 + round) % 7 * 16] = 3;
        OpenOptions options = With(*model, tokens);
        if (round % 2 == 1) options.prefix->least_quality = PrefixQuality::kCompacted;
        absl::StatusOr<Sequence> sequence = session->OpenSequence(options);
        ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
        Write(*sequence, tokens);
        const size_t seen = VisibleNext(*sequence, 1).size();
        ASSERT_EQ(seen, sequence->retention() == "full" ? tokens.size() + 1 : 36U);
        ASSERT_TRUE(sequence->PublishPrefix().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(server_->Snapshot().tenants[0].condensings, 0U);
}

}  // namespace
}  // namespace kvasir::testing
