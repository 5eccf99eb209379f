// A recording of real traffic is a trace that kvasir-replay reads.
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "client/ctl/commands.h"
#include "client/ctl/trace_file.h"
#include "replay/replay.h"
#include "replay/trace.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

class TraceRecordTest : public DaemonFixture {
 protected:
  void SetUp() override {
    StartServer(MakeConfig());
    session_ = Connect();
    ASSERT_NE(session_, nullptr);
    const absl::StatusOr<ModelHandle> model = session_->RegisterModel(TinySpec(1));
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *model;
  }
  void TearDown() override {
    session_.reset();
    DaemonFixture::TearDown();
  }

  // A sequence that is asked for `prompt` tokens, of the same text, and goes on by `answer`.
  void Serve(uint32_t prompt, uint32_t answer) {
    std::vector<uint32_t> tokens;
    for (uint32_t i = 0; i < prompt + answer; ++i) tokens.push_back(5 + i * i % 900);
    OpenOptions options;
    options.model = model_;
    options.retention = "full";
    options.prefix = PrefixOptions{};
    options.prefix->tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(prompt));
    absl::StatusOr<Sequence> sequence = session_->OpenSequence(options);
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    while (sequence->rows() < tokens.size()) {
      const absl::StatusOr<StepView> step =
          sequence->Begin(static_cast<uint32_t>(tokens.size() - sequence->rows()));
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, TinySpec(1));
      ASSERT_TRUE(sequence->Commit(std::span(tokens).subspan(step->row, step->count)).ok());
    }
  }

  std::string control() const { return folder_.path() + "/control.sock"; }

  std::unique_ptr<Session> session_;
  ModelHandle model_;
};

TEST_F(TraceRecordTest, WhatIsRecordedCanBeReplayed) {
  const auto admin = v1::Admin::NewStub(
      grpc::CreateChannel("unix:" + control(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::RecordTraceRequest request;
  request.set_tenant("test");
  const auto reader = admin->RecordTrace(&context, request);
  reader->WaitForInitialMetadata();
  Serve(1100, 20);
  Serve(600, 0);
  Serve(1100, 3);
  if (HasFatalFailure()) return;
  std::stringstream file;
  for (int i = 0; i < 3; ++i) {
    v1::TraceRecord record;
    ASSERT_TRUE(reader->Read(&record));
    EXPECT_EQ(record.lost(), 0U);
    file << ctl::TraceLineOf(record);
  }
  context.TryCancel();
  (void)reader->Finish();
  const absl::StatusOr<replay::Trace> trace = replay::Trace::Read(file, 512);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->requests(), 3U);
  EXPECT_EQ(trace->request(0).tokens_in, 1100U);
  EXPECT_EQ(trace->request(0).tokens_out, 20U);
  EXPECT_EQ(trace->request(1).tokens_in, 600U);
  EXPECT_EQ(trace->request(2).tokens_out, 3U);
  EXPECT_EQ(trace->accesses().size(), 8U);
  EXPECT_EQ(trace->unique_blocks(), 4U);
  const auto result = replay::Replay(*trace, replay::kInfinite, 4, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->block_hits, 4U);  // the first block of the second, all three of the third
}

TEST_F(TraceRecordTest, KvasirctlWritesTheFile) {
  const std::string path = folder_.path() + "/trace.jsonl";
  std::ostringstream out, err;
  std::atomic<int> exit_code{-1};
  std::thread recorder([&] {
    exit_code = ctl::RunKvasirctl({"--socket=" + control(), "trace", "record", "--tenant=test",
                                   "--output", path, "--seconds=1"},
                                  {}, out, err);
  });
  while (exit_code < 0 && !HasFatalFailure()) Serve(700, 1);
  recorder.join();
  EXPECT_EQ(exit_code, 0) << err.str();
  EXPECT_THAT(out.str(), HasSubstr(" requests recorded, "));
  std::ifstream file(path);
  const absl::StatusOr<replay::Trace> trace = replay::Trace::Read(file, 512);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->unique_blocks(), 2U);
}

TEST_F(TraceRecordTest, WhatCannotBeRecordedIsRefused) {
  const auto run = [&](std::vector<std::string> arguments) {
    std::ostringstream out, err;
    arguments.insert(arguments.begin(), "--socket=" + control());
    const int code = ctl::RunKvasirctl(std::move(arguments), {}, out, err);
    return std::to_string(code) + " " + err.str();
  };
  const std::string file = "--output=" + folder_.path() + "/trace.jsonl";
  EXPECT_THAT(run({"trace", "record", "--tenant=nobody", file}), HasSubstr("1 kvasirctl: unknown"));
  EXPECT_THAT(run({"trace", "record", "--tenant=test", "--output=/no/such/file"}),
              HasSubstr("1 kvasirctl: the file cannot be written: output=/no/such/file"));
  EXPECT_THAT(run({"trace", "record", file}), HasSubstr("2 --tenant is required"));
  EXPECT_THAT(run({"trace", "replay", "--tenant=test", file}), HasSubstr("2 "));
  EXPECT_THAT(run({"trace", "record", "--tenant=test", file, "--seconds=86401"}), HasSubstr("2 "));
  RawCalls calls(control(), "");
  const auto admin = v1::Admin::NewStub(calls.channel());
  grpc::ClientContext context;
  v1::RecordTraceRequest request;
  request.set_tenant("test");
  request.set_seconds(86401);
  const auto reader = admin->RecordTrace(&context, request);
  v1::TraceRecord record;
  EXPECT_FALSE(reader->Read(&record));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace kvasir::testing
