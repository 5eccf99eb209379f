// Prefixes over the sockets: published by one session, found by another through libkvasir, seen and
// given up by operators; and what is no prefix is refused.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/integration/prefix_engines.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

using PrefixTest = PrefixDaemonTest;

TEST_F(PrefixTest, AnotherSessionGoesOnAndNothingIsWrittenAgain) {
  const std::vector<uint32_t> tokens = Tokens(700);
  {
    const Engine first = MakeEngine();
    Store(first, "full", tokens);
    Store(first, "streamingllm:start_size=4,recent_size=100,positions=original", tokens);
    if (HasFatalFailure()) return;
  }
  const Engine second = MakeEngine();
  const absl::StatusOr<std::vector<PrefixForm>> forms =
      second.session->MatchPrefix(second.model, {tokens, {}, "", 0, std::nullopt});
  ASSERT_TRUE(forms.ok()) << MessageOf(forms.status());
  ASSERT_EQ(forms->size(), 2U);
  EXPECT_EQ((*forms)[0].rows, 700U);
  EXPECT_EQ((*forms)[0].quality, PrefixQuality::kCompacted);
  EXPECT_EQ((*forms)[1].rows, 688U);
  EXPECT_EQ((*forms)[1].quality, PrefixQuality::kFull);

  const uint64_t held = HeldBytes();
  absl::StatusOr<Sequence> sequence = second.session->OpenSequence(With(second, "full", tokens));
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  EXPECT_EQ(sequence->rows(), 688U);
  absl::StatusOr<StepView> step = sequence->Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  const ModelSpec spec = TinySpec(kLayers);
  WriteTestRows(*step, spec);
  std::vector<uint64_t> all(689);
  for (uint64_t row = 0; row < all.size(); ++row) all[row] = row;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(VisibleRows(step->layers[layer], 688, layer, spec), all);
  }
  // Two recent blocks of its own; the rest is one copy for all.
  const uint64_t token_bytes = uint64_t{kLayers} * 2 * 2 * 16 * 2;
  EXPECT_LT(HeldBytes() - held, token_bytes * sequence->slots_per_block() * 2 + (16 << 10));

  std::vector<uint32_t> other = tokens;
  other[300] = 1;
  absl::StatusOr<Sequence> fork = second.session->OpenSequence(With(second, "full", other));
  ASSERT_TRUE(fork.ok()) << MessageOf(fork.status());
  EXPECT_EQ(fork->rows(), 288U);
  OpenOptions good_enough = With(second, "full", tokens);
  good_enough.prefix->least_quality = PrefixQuality::kCompacted;
  absl::StatusOr<Sequence> longest = second.session->OpenSequence(good_enough);
  ASSERT_TRUE(longest.ok()) << MessageOf(longest.status());
  EXPECT_EQ(longest->rows(), 700U);
  EXPECT_THAT(longest->retention(), HasSubstr("streamingllm"));
}

TEST_F(PrefixTest, FetchingTakesAsManyCallsHoweverManyBlocksThereAre) {
  std::vector<uint64_t> calls_made;
  for (const uint32_t rows : {64U, 2048U}) {
    std::vector<uint32_t> tokens = Tokens(rows + 1);
    tokens[0] = rows % 7 + 3;  // of its own
    Store(MakeEngine(), "full", tokens);
    if (HasFatalFailure()) return;
    const Engine engine = MakeEngine();
    const auto calls_of = [&engine] {
      return engine.session->calls().ring + engine.session->calls().grpc;
    };
    const uint64_t before = calls_of();
    absl::StatusOr<Sequence> sequence = engine.session->OpenSequence(With(engine, "full", tokens));
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    ASSERT_EQ(sequence->rows(), rows);
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    WriteTestRows(*step, TinySpec(kLayers));
    EXPECT_EQ(VisibleRows(step->layers[0], rows, 0, TinySpec(kLayers)).size(), rows + 1);
    calls_made.push_back(calls_of() - before);
  }
  EXPECT_EQ(calls_made[0], calls_made[1]);
  EXPECT_LE(calls_made[0], 2U);  // to open it, and for the row behind
}

TEST_F(PrefixTest, OperatorsSeeWhatIsCachedAndWhyAPromptWasNot) {
  const Engine engine = MakeEngine();
  const std::vector<uint32_t> tokens = Tokens(100);
  Store(engine, "full", tokens);
  if (HasFatalFailure()) return;
  std::vector<uint32_t> other = tokens;
  other[70] = 1;
  uint64_t id = 0;
  {
    absl::StatusOr<Sequence> fork = engine.session->OpenSequence(With(engine, "full", other));
    ASSERT_TRUE(fork.ok()) << MessageOf(fork.status());
    id = fork->id();
  }
  RawCalls calls = Calls();
  v1::ListPrefixesResponse prefixes;
  ASSERT_TRUE(
      calls.CallAdmin(&v1::Admin::Stub::ListPrefixes, v1::ListPrefixesRequest(), &prefixes).ok());
  ASSERT_EQ(prefixes.prefixes_size(), 1);
  EXPECT_EQ(prefixes.prefixes(0).rows(), 100U);
  EXPECT_EQ(prefixes.prefixes(0).hits(), 1U);
  v1::ListPrefixLookupsResponse lookups;
  ASSERT_TRUE(
      calls.CallAdmin(&v1::Admin::Stub::ListPrefixLookups, v1::ListPrefixLookupsRequest(), &lookups)
          .ok());
  ASSERT_EQ(lookups.lookups_size(), 2);
  EXPECT_EQ(lookups.lookups(0).cause(), "not stored");
  EXPECT_EQ(lookups.lookups(1).cause(), "token");
  EXPECT_EQ(lookups.lookups(1).row(), 70U);
  EXPECT_EQ(lookups.lookups(1).rows_hit(), 64U);
  EXPECT_EQ(lookups.lookups(1).sequence_id(), id);
  v1::GetHitRateCurvesRequest asked;
  v1::GetHitRateCurvesResponse curves;
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::GetHitRateCurves, asked, &curves).ok());
  ASSERT_EQ(curves.curves_size(), 1);
  EXPECT_EQ(curves.curves(0).chunks_asked(), 12U);  // of both prompts
  ASSERT_EQ(curves.curves(0).points_size(), 7);
  EXPECT_EQ(curves.curves(0).points(3).bytes(), curves.curves(0).limit_bytes());
  EXPECT_DOUBLE_EQ(curves.curves(0).points(6).hit_ratio(), 4.0 / 12);
  asked.set_tenant("nobody");
  EXPECT_EQ(calls.CallAdmin(&v1::Admin::Stub::GetHitRateCurves, asked, &curves).error_code(),
            grpc::StatusCode::NOT_FOUND);
  const StatsSnapshot stats = server_->Snapshot();
  ASSERT_EQ(stats.tenants[0].hit_ratios.size(), 7U);
  EXPECT_EQ(stats.tenants[0].hit_ratios[6],
            std::pair(curves.curves(0).points(6).times(), curves.curves(0).points(6).hit_ratio()));
  EXPECT_EQ(stats.tenants[0].prefix_lookups, 2U);
  EXPECT_EQ(stats.tenants[0].prefix_hits, 1U);
  EXPECT_EQ(stats.tenants[0].prefix_rows, 200U);
  EXPECT_EQ(stats.tenants[0].prefix_rows_hit, 64U);
  EXPECT_EQ(stats.tenants[0].prefix_chunks, 6U);
}

TEST_F(PrefixTest, WhoWatchesIsToldOfEachChange) {
  const auto channel = grpc::CreateChannel("unix:" + folder_.path() + "/control.sock",
                                           grpc::InsecureChannelCredentials());
  const auto admin = v1::Admin::NewStub(channel);
  const Engine engine = MakeEngine();
  Store(engine, "full", Tokens(64));
  if (HasFatalFailure()) return;
  grpc::ClientContext context;
  v1::WatchPrefixesRequest request;
  request.set_from_number(1);
  const auto reader = admin->WatchPrefixes(&context, request);
  v1::PrefixEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), v1::PrefixEvent::KIND_STORED);
  EXPECT_EQ(event.keys_size(), 4);
  EXPECT_EQ(event.keys(0).size(), 16U);
  Store(engine, "full", Tokens(128));
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), v1::PrefixEvent::KIND_SUPERSEDED);
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), v1::PrefixEvent::KIND_STORED);
  EXPECT_EQ(event.rows(), 128U);
  Drop();
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), v1::PrefixEvent::KIND_EVICTED);
  EXPECT_EQ(event.rows(), 0U);
  context.TryCancel();
  (void)reader->Finish();
}

TEST_F(PrefixTest, WhatIsNoPrefixIsRefused) {
  const Engine engine = MakeEngine();
  const auto refused = [&](const auto& change) {
    OpenOptions options = With(engine, "full", Tokens(20));
    change(options);
    return engine.session->OpenSequence(options).status();
  };
  absl::Status status = refused([](OpenOptions& o) { o.prefix->tokens[7] = 1000; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("prefix.tokens[7]"));
  status = refused([](OpenOptions& o) { o.prefix->digests = {{3, ""}}; });
  EXPECT_THAT(MessageOf(status), HasSubstr("extras[0].bytes"));
  status = refused([](OpenOptions& o) { o.prefix->digests = {{3, "a"}, {2, "b"}}; });
  EXPECT_THAT(MessageOf(status), HasSubstr("extras[1].row"));
  status = refused([](OpenOptions& o) { o.prefix->salt = std::string(257, 's'); });
  EXPECT_THAT(MessageOf(status), HasSubstr("prefix.salt"));
  status = refused([](OpenOptions& o) { o.prefix->least_quality = static_cast<PrefixQuality>(9); });
  EXPECT_THAT(MessageOf(status), HasSubstr("least_quality"));
  status = refused([](OpenOptions& o) { o.snapshot = std::string(16, 'x'); });
  EXPECT_THAT(MessageOf(status), HasSubstr("not from both"));
  OpenOptions plain = With(engine, "full", Tokens(20));
  plain.prefix.reset();
  absl::StatusOr<Sequence> sequence = engine.session->OpenSequence(plain);
  ASSERT_TRUE(sequence.ok());
  Write(*sequence, Tokens(20));
  EXPECT_EQ(sequence->PublishPrefix().status().code(), absl::StatusCode::kFailedPrecondition);
}

// Sessions that come, publish and go at the same time; every row that is seen is the right one.
TEST_F(PrefixTest, ManySessionsShareAtOnce) {
  const std::vector<uint32_t> stem = Tokens(400);
  std::vector<std::thread> threads;
  std::atomic<uint64_t> attached{0};
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const ModelSpec spec = TinySpec(kLayers);
      for (uint32_t round = 0; round < 12; ++round) {
        const Engine engine = MakeEngine();
        std::vector<uint32_t> tokens(stem.begin(), stem.begin() + 100 + (t * 7 + round * 31) % 300);
        tokens.push_back(3 + t);
        absl::StatusOr<Sequence> sequence =
            engine.session->OpenSequence(With(engine, "full", tokens));
        ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
        attached += sequence->rows();
        Write(*sequence, tokens);
        absl::StatusOr<StepView> step = sequence->Begin(1);
        ASSERT_TRUE(step.ok()) << MessageOf(step.status());
        WriteTestRows(*step, spec);
        ASSERT_EQ(VisibleRows(step->layers[1], step->row, 1, spec).size(), tokens.size() + 1);
        ASSERT_TRUE(sequence->PublishPrefix().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(attached, 0U);
}

}  // namespace
}  // namespace kvasir::testing
