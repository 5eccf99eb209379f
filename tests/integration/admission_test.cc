// Who asks for more than it may have is told what is missing and when to ask again, by whatever way
// it asks; and its hints reach the daemon.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/shortage.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

class AdmissionTest : public DaemonFixture {
 protected:
  // Writes rows until the daemon gives no more.
  static absl::Status Fill(Sequence& sequence, const ModelSpec& spec) {
    for (;;) {
      absl::StatusOr<StepView> step = sequence.Begin(16);
      if (!step.ok()) return step.status();
      WriteTestRows(*step, spec);
      const absl::Status committed = sequence.Commit(std::vector<uint32_t>(step->count, 5));
      if (!committed.ok()) return committed;
    }
  }
};

TEST_F(AdmissionTest, WhatIsMissingIsToldByRingAndByGrpc) {
  Config config = MakeConfig();
  config.tenants[0].limit_bytes = 4 * kMiB;
  StartServer(config);
  for (const bool use_ring : {true, false}) {
    SCOPED_TRACE(use_ring);
    ConnectOptions options = MakeConnectOptions();
    options.use_ring = use_ring;
    std::unique_ptr<Session> session = *Session::Connect(options);
    const ModelSpec spec = TinySpec(8);
    const ModelHandle model = *session->RegisterModel(spec);
    OpenOptions open;
    open.model = model;
    open.hints.priority = 9;
    Sequence dear = *session->OpenSequence(open);
    open.hints = {};
    open.hints.predicted_rows = 90'000;
    Sequence long_one = *session->OpenSequence(open);
    EXPECT_FALSE(dear.suspend_wanted() || long_one.suspend_wanted());
    {
      absl::StatusOr<StepView> step = long_one.Begin(16);
      ASSERT_TRUE(step.ok());
      WriteTestRows(*step, spec);
      ASSERT_TRUE(long_one.Commit(std::vector<uint32_t>(step->count, 5)).ok());
    }
    const absl::Status full = Fill(dear, spec);
    ASSERT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << MessageOf(full);
    EXPECT_THAT(MessageOf(full), HasSubstr("tenant is over its limit"));
    EXPECT_THAT(MessageOf(full), HasSubstr("missing="));
    ASSERT_TRUE(RetryAfter(full).has_value());
    EXPECT_EQ(*RetryAfter(full), std::chrono::milliseconds(1000));
    EXPECT_EQ(ShortageOf(full)->budget, use_ring ? "" : "tenant.limit_bytes");
    EXPECT_TRUE(long_one.suspend_wanted());
    EXPECT_FALSE(dear.suspend_wanted());
    // It turns out to be dearer than the other.
    EXPECT_TRUE(long_one.SetHints({.priority = 10}).ok());
    EXPECT_EQ(long_one.SetHints({.priority = 1000}).code(), absl::StatusCode::kInvalidArgument);
    ASSERT_TRUE(long_one.Close().ok());
    EXPECT_FALSE(dear.suspend_wanted());
  }
}

TEST_F(AdmissionTest, CallsAreCountedByTenant) {
  Config config = MakeConfig();
  config.limits.calls_per_tenant_max = 4;
  StartServer(config);
  std::vector<std::unique_ptr<RawCalls>> connections;
  std::vector<std::thread> watchers;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  for (int i = 0; i < 5; ++i) {
    connections.push_back(
        std::make_unique<RawCalls>(config.server.control_socket, std::string(32, '0')));
    contexts.push_back(std::make_unique<grpc::ClientContext>());
  }
  std::atomic<int> refused = 0;
  std::atomic<int> ended = 0;
  for (int i = 0; i < 5; ++i) {
    watchers.emplace_back([&, i] {
      v1::PrefixEvent event;
      const auto at = static_cast<size_t>(i);
      const auto stub = v1::Admin::NewStub(connections[at]->channel());
      const auto reader = stub->WatchPrefixes(contexts[at].get(), {});
      while (reader->Read(&event)) {
      }
      const grpc::Status status = reader->Finish();
      if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) ++refused;
      ++ended;
    });
  }
  while (ended == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(refused, 1) << "four wait, the fifth is refused at once";
  v1::GetStatsResponse stats;
  const grpc::Status status =
      connections[0]->CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  // On a connection with four streams the client itself waits, on others the daemon refuses.
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("limits.calls_per_tenant_max=4"));
  v1::StatusWithDetails details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  v1::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_EQ(retry.retry_delay().nanos(), 100'000'000);
  v1::Shortage shortage;
  ASSERT_TRUE(shortage.ParseFromString(details.details(1).value()));
  EXPECT_EQ(shortage.budget(), "limits.calls_per_tenant_max");

  for (const auto& context : contexts) context->TryCancel();
  for (std::thread& watcher : watchers) watcher.join();
  grpc::Status again = status;
  // Watchers that are cancelled leave some time later; the last one is this call.
  while (!again.ok() || stats.tenants(0).calls() > 1) {
    again = connections[0]->CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  }
  ASSERT_EQ(stats.tenants_size(), 1);
  EXPECT_GE(stats.tenants(0).calls_refused(), 2U);
}

TEST_F(AdmissionTest, ConnectionsAreCountedByTenant) {
  Config config = MakeConfig();
  config.limits.connections_per_tenant_max = 2;
  StartServer(config);
  const auto call = [&](RawCalls& calls) {
    v1::GetStatsResponse stats;
    return calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  };
  auto first = std::make_unique<RawCalls>(config.server.control_socket, std::string(32, '0'));
  RawCalls second(config.server.control_socket, std::string(32, '0'));
  ASSERT_TRUE(call(*first).ok());
  ASSERT_TRUE(call(second).ok());
  {
    RawCalls third(config.server.control_socket, std::string(32, '0'));
    EXPECT_EQ(call(third).error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  first.reset();  // gRPC closes it some time later
  for (grpc::Status status = call(second);; status = grpc::Status::CANCELLED) {
    RawCalls other(config.server.control_socket, std::string(32, '0'));
    if (call(other).ok()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_F(AdmissionTest, SessionsOfOneTenantLeaveRoomForOthers) {
  Config config = MakeConfig();
  config.limits.sessions_max = 8;
  config.tenants[0].sessions_max = 2;
  StartServer(config);
  std::unique_ptr<Session> first = Connect(), second = Connect();
  const absl::Status third = Session::Connect(MakeConnectOptions()).status();
  EXPECT_EQ(third.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(third), HasSubstr("tenant.sessions_max=2"));
}

}  // namespace
}  // namespace kvasir::testing
