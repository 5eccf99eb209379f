#include "tests/support/raw_client.h"

#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::testing {
namespace {

constexpr int kWaitMs = 10'000;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& control_socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + control_socket, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

shm::Hello GoodHello() {
  shm::Hello hello{};
  hello.magic = shm::kHelloMagic;
  hello.kind = static_cast<uint32_t>(shm::MessageKind::kHello);
  hello.abi_min = hello.abi_max = shm::kAbiVersion;
  return hello;
}

absl::StatusOr<RawDataSocket> RawDataSocket::Connect(const std::string& path) {
  RawDataSocket socket;
  KVASIR_ASSIGN_OR_RETURN(socket.socket_, ConnectUnix(path, SocketType::kSeqPacket));
  return socket;
}

void RawDataSocket::Send(const void* bytes, uint64_t count) {
  EXPECT_EQ(::send(socket_.get(), bytes, count, MSG_NOSIGNAL), static_cast<ssize_t>(count));
}

absl::StatusOr<ReceivedMessage> RawDataSocket::Receive(void* buffer, uint64_t bytes) {
  KVASIR_ASSIGN_OR_RETURN(const bool readable, WaitReadable(socket_.get(), kWaitMs));
  if (!readable) return DeadlineExceeded("nothing on the data socket");
  return ReceiveMessage(socket_, {static_cast<std::byte*>(buffer), bytes});
}

absl::Status RawDataSocket::Greet(const shm::Hello& hello) {
  Send(&hello, sizeof(hello));
  union {
    shm::Welcome welcome;
    shm::Refusal refusal;
  } answer{};
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, Receive(&answer, sizeof(answer)));
  if (message.bytes == sizeof(shm::Refusal)) {
    return MakeError(static_cast<absl::StatusCode>(answer.refusal.code), answer.refusal.text);
  }
  if (message.bytes != sizeof(shm::Welcome) || message.fds.size() != 2) {
    return Internal("no welcome: bytes={} fds={}", message.bytes, message.fds.size());
  }
  fds_ = std::move(message.fds);
  for (const uint8_t byte : answer.welcome.token) token_ += fmt::format("{:02x}", byte);
  KVASIR_ASSIGN_OR_RETURN(d_,
                          MappedRegion::Map(fds_[0], answer.welcome.d_bytes, Access::kReadOnly));
  KVASIR_ASSIGN_OR_RETURN(e_,
                          MappedRegion::Map(fds_[1], answer.welcome.e_bytes, Access::kReadWrite));
  return absl::OkStatus();
}

bool RawDataSocket::IsHungUp() {
  for (;;) {
    shm::Refusal message{};
    const absl::StatusOr<ReceivedMessage> received = Receive(&message, sizeof(message));
    if (received.status().code() == absl::StatusCode::kDeadlineExceeded) return false;
    if (!received.ok() || received->bytes == 0) return true;
  }
}

absl::StatusOr<RawDataSocket::SentExtent> RawDataSocket::ReceiveExtent() {
  SentExtent extent;
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message,
                          Receive(&extent.notice, sizeof(extent.notice)));
  if (message.bytes != sizeof(extent.notice) || message.fds.size() != 1) {
    return Internal("no extent: bytes={} fds={}", message.bytes, message.fds.size());
  }
  extent.fd = std::move(message.fds[0]);
  return extent;
}

RawCalls::RawCalls(const std::string& control_socket, std::string token_hex)
    : token_hex_(std::move(token_hex)),
      channel_(MakeChannel(control_socket)),
      kv_cache_(v1::KvCache::NewStub(channel_)),
      admin_(v1::Admin::NewStub(channel_)) {}

void RawCalls::Prepare(grpc::ClientContext& context) const {
  if (!token_hex_.empty()) context.AddMetadata("kvasir-session-token", token_hex_);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(kWaitMs));
}

}  // namespace kvasir::testing
