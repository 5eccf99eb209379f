// Who a gRPC call is of: connections by descriptor number, and numbers that are used again.
#include "daemon/control/caller.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/posix.h"
#include "kvasir/v1/admin.grpc.pb.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

constexpr int kNumber = 700;  // of the daemon's end; nothing else comes near it
constexpr uint32_t kUserA = 12001, kUserB = 12002;
constexpr Instant kStart = Instant(std::chrono::hours(1));

// The peer's uid, as version; the registry's error. Where a gate is set, not before the connection
// is closed and the gate is open.
class Teller final : public v1::Admin::Service {
 public:
  explicit Teller(const CallerRegistry& callers) : callers_(callers) {}

  grpc::Status GetStats(grpc::ServerContext* context, const v1::GetStatsRequest*,
                        v1::GetStatsResponse* response) override {
    if (gated) {
      entered = true;
      while (!context->IsCancelled()) std::this_thread::yield();
      hung_up = true;
      while (!open) std::this_thread::yield();
    }
    const absl::StatusOr<CallerRegistry::Caller> caller = callers_.CallerOf(context->peer());
    if (gated) told = caller.ok() ? std::optional(caller->peer.uid) : std::nullopt;
    if (!caller.ok()) return {grpc::StatusCode::UNAUTHENTICATED, MessageOf(caller.status())};
    response->set_version(std::to_string(caller->peer.uid));
    return grpc::Status::OK;
  }

  std::atomic<bool> gated{false}, entered{false}, hung_up{false}, open{false};
  std::atomic<std::optional<uint32_t>> told{};

 private:
  const CallerRegistry& callers_;
};

// One connection to the server, whose end there has a chosen number.
class Connection {
 public:
  explicit Connection(int number) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    number_ = ::fcntl(ends[0], F_DUPFD_CLOEXEC, number);
    ::close(ends[0]);
    client_ = UniqueFd(::fcntl(ends[1], F_DUPFD_CLOEXEC, 0));
    stub_ = v1::Admin::NewStub(grpc::CreateInsecureChannelFromFd("test", ends[1]));
  }

  int number() const { return number_; }
  void HangUp() const { (void)::shutdown(client_.get(), SHUT_RDWR); }
  // The uid that the server takes this one for, or its error.
  std::string Ask() {
    grpc::ClientContext context;
    v1::GetStatsResponse response;
    const grpc::Status status = stub_->GetStats(&context, {}, &response);
    return status.ok() ? response.version() : status.error_message();
  }

 private:
  int number_ = -1;
  UniqueFd client_;
  std::unique_ptr<v1::Admin::Stub> stub_;
};

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
void WaitUntilClosed(int fd) {
  while (IsOpen(fd)) std::this_thread::yield();
}

class CallerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.RegisterService(&teller_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override {
    teller_.open = true;
    server_->Shutdown();
    server_.reset();
    WaitUntilClosed(kNumber);  // by gRPC, some time later: the next test wants it
  }

  std::unique_ptr<Connection> Accept(std::optional<uint32_t> uid) {
    auto connection = std::make_unique<Connection>(kNumber);
    EXPECT_EQ(connection->number(), kNumber);
    if (uid) {
      core::Peer peer;
      peer.uid = *uid;
      EXPECT_TRUE(callers_.Register(connection->number(), peer, 0, kStart).ok());
    }
    grpc::AddInsecureChannelFromFd(server_.get(), connection->number());
    return connection;
  }

  CallerRegistry callers_{{}, 64};
  Teller teller_{callers_};
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(CallerTest, ANumberThatIsUsedAgainIsTheNewPeer) {
  for (int round = 0; round < 20; ++round) {
    for (const uint32_t uid : {kUserA, kUserB}) {
      const std::unique_ptr<Connection> connection = Accept(uid);
      ASSERT_EQ(connection->Ask(), std::to_string(uid));
      connection->HangUp();
      WaitUntilClosed(kNumber);
    }
  }
}

TEST_F(CallerTest, ANumberThatNobodyRegisteredInheritsNothing) {
  std::unique_ptr<Connection> connection = Accept(kUserA);
  ASSERT_EQ(connection->Ask(), std::to_string(kUserA));
  connection->HangUp();
  WaitUntilClosed(kNumber);
  connection = Accept(std::nullopt);
  EXPECT_THAT(connection->Ask(), HasSubstr("has no credentials: peer=fd:700"));
}

// What the registry relies on: while a call of a connection runs, nobody else gets its number,
// however long ago the peer has hung up. So a call that A left behind never acts as B.
TEST_F(CallerTest, ACallThatOutlivesItsPeerKeepsTheNumber) {
  teller_.gated = true;
  const std::unique_ptr<Connection> connection = Accept(kUserA);
  std::thread caller([&] { EXPECT_THAT(connection->Ask(), ::testing::Not("12001")); });
  while (!teller_.entered) std::this_thread::yield();
  connection->HangUp();
  caller.join();
  while (!teller_.hung_up) std::this_thread::yield();  // both sides know that it is over
  for (int knocks = 0; knocks < 50; ++knocks) {
    Connection other(kNumber);  // B's
    EXPECT_NE(other.number(), kNumber);
    core::Peer peer;
    peer.uid = kUserB;
    ASSERT_TRUE(callers_.Register(other.number(), peer, 0, kStart).ok());
    ::close(other.number());
  }
  teller_.open = true;
  WaitUntilClosed(kNumber);
  EXPECT_EQ(teller_.told.load(), kUserA);
}

TEST_F(CallerTest, ClosedConnectionsAreForgotten) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd a(ends[0]), b(ends[1]);
  for (int number = kNumber; number < kNumber + 300; ++number) {
    const UniqueFd fd(::fcntl(a.get(), F_DUPFD_CLOEXEC, number));
    ASSERT_TRUE(callers_.Register(fd.get(), core::Peer(), 0, kStart).ok());
  }
  EXPECT_LE(callers_.size_for_test(), 64U);
  EXPECT_FALSE(callers_.Register(-1, core::Peer(), 0, kStart).ok());
}

TEST(CallerRegistry, WhoHadToBeHungUpOnWaitsAndNobodyElseDoes) {
  CallerRegistry callers({}, 64);
  core::Peer peer;
  peer.uid = kUserA;
  std::vector<UniqueFd> ours, theirs;
  const auto connect = [&](size_t slot, Instant now) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ours.emplace_back(ends[0]);
    theirs.emplace_back(ends[1]);
    return callers.Register(ends[0], peer, slot, now);
  };
  const auto close_last = [&](Instant now) {
    callers.Close("fd:" + std::to_string(ours.back().get()), now);
    char byte = 0;
    EXPECT_EQ(::recv(theirs.back().get(), &byte, 1, 0), 0) << "hung up";
  };
  ASSERT_TRUE(connect(3, kStart).ok());
  close_last(kStart);
  const absl::Status barred = connect(3, kStart + CallerRegistry::kBarTime - Instant::duration(1));
  EXPECT_EQ(barred.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(barred), HasSubstr("uid=12001 wait_ms=1"));
  EXPECT_TRUE(connect(2, kStart).ok());
  // Twice as long each time.
  Instant now = kStart + CallerRegistry::kBarTime;
  for (std::chrono::milliseconds bar = 2 * CallerRegistry::kBarTime;; bar *= 2) {
    const std::chrono::milliseconds most = std::min(bar, CallerRegistry::kBarTimeMax);
    ASSERT_TRUE(connect(3, now).ok());
    close_last(now);
    EXPECT_FALSE(connect(3, now + most - Instant::duration(1)).ok());
    now += most;
    if (bar > CallerRegistry::kBarTimeMax) break;
  }
  // And from the beginning after a good while.
  now += 2 * CallerRegistry::kBarTimeMax;
  ASSERT_TRUE(connect(3, now).ok());
  close_last(now);
  EXPECT_FALSE(connect(3, now).ok());
  EXPECT_TRUE(connect(3, now + CallerRegistry::kBarTime).ok());
  // What is no connection bars nobody.
  callers.Close("fd:77777", now + std::chrono::seconds(9));
  EXPECT_TRUE(connect(3, now + std::chrono::seconds(9)).ok());
}

TEST(CallerRegistry, Administrators) {
  const CallerRegistry callers({7}, 64);
  const auto is_admin = [&callers](uint32_t uid, bool contained) {
    core::Peer peer;
    peer.uid = uid;
    peer.contained = contained;
    return callers.IsAdmin(peer);
  };
  EXPECT_TRUE(is_admin(0, false));
  EXPECT_TRUE(is_admin(::geteuid(), false));
  EXPECT_FALSE(is_admin(0, true));  // root of a container
  EXPECT_FALSE(is_admin(::geteuid(), true));
  EXPECT_TRUE(is_admin(7, false));
  EXPECT_TRUE(is_admin(7, true));  // the operator has said so
  EXPECT_FALSE(is_admin(8, false));
  EXPECT_TRUE(CallerRegistry({0}, 64).IsAdmin([] {
    core::Peer peer;
    peer.contained = true;
    return peer;
  }()));
}

}  // namespace
}  // namespace kvasir
