// The command ring between a real daemon and its engines: the same answers as by gRPC, whoever lies
// ends alone, and nobody hangs when the other side is gone.
#include <fcntl.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ring/command_caller.h"
#include "ring/commands.h"
#include "ring/doorbell.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

class RingSessionTest : public DaemonFixture {
 protected:
  std::unique_ptr<Session> ConnectBy(bool ring) {
    ConnectOptions options = MakeConnectOptions();
    options.use_ring = ring;
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
    EXPECT_TRUE(session.ok()) << MessageOf(session.status());
    return session.ok() ? *std::move(session) : nullptr;
  }
  RawEngine MakeRaw() {
    return RawEngine(folder_.path() + "/control.sock", folder_.path() + "/data.sock", 1);
  }
  uint64_t Violations() { return server_->Snapshot().tenants[0].violations; }

  // What a sequence of the retention sees and is told, row after row, in words.
  std::vector<std::string> Story(bool ring, const std::string& retention) {
    std::vector<std::string> story;
    const std::unique_ptr<Session> session = ConnectBy(ring);
    if (session == nullptr) return story;
    const absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(2));
    EXPECT_TRUE(model.ok());
    OpenOptions open;
    open.model = *model;
    open.retention = retention;
    open.prefix = PrefixOptions{};
    open.prefix->tokens = PromptOf(ring ? 1 : 2, 200);
    absl::StatusOr<Sequence> sequence = session->OpenSequence(open);
    EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    while (sequence.ok() && sequence->rows() < 150) {
      const absl::StatusOr<StepView> step = sequence->Begin(7);
      if (!step.ok()) {
        story.push_back(MessageOf(step.status()));
        break;
      }
      const LayerView& view = step->layers[0];
      uint64_t kept = 0;
      for (const KeptRunView& run : view.kept) kept += run.rows;
      story.push_back("row " + std::to_string(step->row) + " count " + std::to_string(step->count) +
                      " kept " + std::to_string(kept) + " recent " +
                      std::to_string(view.recent_first));
      const absl::Status committed =
          sequence->Commit(std::span(open.prefix->tokens).subspan(step->row, step->count));
      if (!committed.ok()) story.push_back(MessageOf(committed));
    }
    const absl::Status back = sequence->Truncate(3);
    story.push_back(back.ok() ? "truncated" : "truncate refused");
    const absl::StatusOr<Sequence::Published> published = sequence->PublishPrefix();
    story.push_back(published.ok() ? "published " + std::to_string(published->rows)
                                   : "publish refused");
    const absl::StatusOr<std::vector<PrefixForm>> forms =
        session->MatchPrefix(*model, *open.prefix);
    EXPECT_TRUE(forms.ok()) << MessageOf(forms.status());
    for (const PrefixForm& form : forms.value_or(std::vector<PrefixForm>())) {
      story.push_back("form " + form.retention + " " + std::to_string(form.rows) + " " +
                      form.place);
    }
    return story;
  }
};

// Where nothing depends on when a compaction comes, the stories are the same, word for word.
TEST_F(RingSessionTest, BothWaysSayTheSame) {
  const std::vector<std::string> by_ring = Story(true, "full");
  EXPECT_GT(by_ring.size(), 20U);
  EXPECT_EQ(by_ring, Story(false, "full"));
  for (const std::string retention :
       {"streamingllm:start_size=4,recent_size=40", "sepllm:init_cache_size=4,local_size=32"}) {
    std::vector<std::string> ring = Story(true, retention), grpc = Story(false, retention);
    ASSERT_GT(ring.size(), 20U);
    EXPECT_EQ(ring.front(), grpc.front());
    EXPECT_THAT(ring, ::testing::Contains("truncate refused"));
    EXPECT_THAT(grpc, ::testing::Contains("truncate refused"));
  }
  MutexLock lock(server_->shared_for_test().mutex);
  EXPECT_TRUE(server_->shared_for_test().core.DropPrefixes("").ok());
}

TEST_F(RingSessionTest, ErrorsHaveTheirWords) {
  for (const bool ring : {true, false}) {
    const std::unique_ptr<Session> session = ConnectBy(ring);
    const ModelHandle model = *session->RegisterModel(TinySpec(2));
    PrefixOptions prefix;
    prefix.tokens = {1, 2, 1'000'000};
    const absl::Status wrong = session->MatchPrefix(model, prefix).status();
    EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(wrong), HasSubstr("prefix.tokens[2] is beyond the vocabulary"));
    ModelHandle other = model;
    other.id = 77;
    EXPECT_EQ(session->MatchPrefix(other, prefix).status().code(), absl::StatusCode::kNotFound);
    // A prompt that no payload has room for goes the other way.
    prefix.tokens = PromptOf(1, 66'000);
    const auto forms = session->MatchPrefix(model, prefix);
    ASSERT_TRUE(forms.ok()) << MessageOf(forms.status());
    EXPECT_TRUE(forms->empty());
  }
}

TEST_F(RingSessionTest, ThreadsShareTheRing) {
  const std::unique_ptr<Session> session = ConnectBy(true);
  const ModelHandle model = *session->RegisterModel(TinySpec(2));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const std::vector<uint32_t> tokens = PromptOf(t, 600);
      OpenOptions open;
      open.model = model;
      open.retention = "streamingllm:start_size=4,recent_size=40";
      absl::StatusOr<Sequence> sequence = session->OpenSequence(open);
      ASSERT_TRUE(sequence.ok());
      while (sequence->rows() < tokens.size()) {
        const absl::StatusOr<StepView> step = sequence->Begin(1);
        ASSERT_TRUE(step.ok()) << MessageOf(step.status());
        ASSERT_TRUE(sequence->Commit(std::span(tokens).subspan(step->row, step->count)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RingSessionTest, GarbageInTheRingEndsItsSessionOnly) {
  RawEngine honest = MakeRaw();
  const v1::OpenSequenceResponse beside = honest.Open("full");
  const std::vector<std::function<void(shm::EngineRingWords&, shm::SubmissionEntry&)>> lies = {
      [](auto& words, auto&) { words.sq_tail += 100'000; },
      [](auto& words, auto&) { words.sq_tail -= 1; },
      [](auto& words, auto& entry) {
        entry.op = 200;
        words.sq_tail += 1;
      },
      [](auto& words, auto& entry) {
        entry.op = 1;
        entry.reserved1 = 1;
        words.sq_tail += 1;
      },
      [](auto& words, auto& entry) {
        entry.op = 1;
        entry.seq = 1 << 30;
        words.sq_tail += 1;
      },
      [](auto& words, auto& entry) {
        entry.op = 2;
        entry.payload_bytes = 0xFFFFFFC0;
        words.sq_tail += 1;
      },
      [](auto& words, auto& entry) {
        entry.op = 5;
        entry.payload_off = 13;
        words.sq_tail += 1;
      },
  };
  uint64_t violations = 0;
  for (const auto& lie : lies) {
    RawEngine liar = MakeRaw();
    const auto memory =
        ring::EngineRingMemory::Open(liar.data().d().data(), liar.data().d().bytes(),
                                     liar.data().e().data(), liar.data().e().bytes());
    ASSERT_TRUE(memory.ok()) << MessageOf(memory.status());
    const uint32_t tail = memory->engine_words->sq_tail.load();
    auto& entry = reinterpret_cast<shm::SubmissionEntry*>(
        memory->submissions)[tail % memory->geometry.submission_entries];
    lie(*memory->engine_words, entry);
    ASSERT_TRUE(ring::RingDoorbell(liar.data().doorbell().get()).ok());
    EXPECT_TRUE(liar.data().IsHungUp());
    EXPECT_EQ(Violations(), ++violations);
    EXPECT_TRUE(honest.Sync(beside, 0).ok());
  }
}

TEST_F(RingSessionTest, ADoorbellThatRingsForNothingCostsALook) {
  RawEngine engine = MakeRaw();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(ring::RingDoorbell(engine.data().doorbell().get()).ok());
  }
  // Full: nobody reads it, and the daemon neither hangs nor minds.
  (void)::fcntl(engine.data().doorbell().get(), F_SETFL, 0);
  const std::unique_ptr<Session> other = ConnectBy(true);
  EXPECT_TRUE(other->RegisterModel(TinySpec(2)).ok());
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  EXPECT_TRUE(engine.Sync(sequence, 0).ok());
  EXPECT_EQ(Violations(), 0U);
}

// More rows than the tenant has room for are never granted: who waits for them is told so.
TEST_F(RingSessionTest, AWaitThatCannotEndIsAnsweredAtItsDeadline) {
  RawEngine engine = MakeRaw();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  const auto memory =
      ring::EngineRingMemory::Open(engine.data().d().data(), engine.data().d().bytes(),
                                   engine.data().e().data(), engine.data().e().bytes());
  ASSERT_TRUE(memory.ok());
  ring::WaitOptions wait;
  wait.peer_is_gone = [] { return false; };
  ring::CommandCaller caller(*memory, engine.data().doorbell().get(), wait);
  shm::CompletionEntry reply{};
  // A table for a row far beyond what was written: the daemon waits for rows that do not come.
  shm::SubmissionEntry entry =
      ring::MakeSync({sequence.sequence(), sequence.uid()}, 0, uint64_t{1} << 40);
  const absl::Status status = caller.Call(
      entry, {}, {}, std::chrono::steady_clock::now() + std::chrono::milliseconds(300), &reply);
  EXPECT_FALSE(status.ok() && reply.result[1] == 0) << MessageOf(status);
  // The ring is as good as before.
  EXPECT_TRUE(caller
                  .Call(ring::MakeSync({sequence.sequence(), sequence.uid()}, 0, std::nullopt), {},
                        {}, std::chrono::steady_clock::now() + std::chrono::seconds(10), &reply)
                  .ok());
}

TEST_F(RingSessionTest, ADaemonThatStopsIsUnavailable) {
  const std::unique_ptr<Session> session = ConnectBy(true);
  const ModelHandle model = *session->RegisterModel(TinySpec(2));
  OpenOptions open;
  open.model = model;
  open.retention = "full";
  absl::StatusOr<Sequence> sequence = session->OpenSequence(open);
  ASSERT_TRUE(sequence.ok());
  server_.reset();
  PrefixOptions prefix;
  prefix.tokens = PromptOf(1, 40);
  EXPECT_EQ(session->MatchPrefix(model, prefix).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sequence->PublishPrefix().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kvasir::testing
