#include "tests/support/raw_client.h"

#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <utility>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/group_geometry.h"
#include "proto/shm/probe_pattern.h"

#include <fmt/format.h>

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
  if (message.bytes != sizeof(shm::Welcome) || message.fds.size() != 3) {
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
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, Receive(&extent.notice, sizeof(extent.notice)));
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

v1::ModelSpec GoodSpec(int layers) {
  v1::ModelSpec spec;
  spec.set_name("raw");
  spec.set_dtype(v1::DATA_TYPE_F16);
  for (int i = 0; i < layers; ++i) {
    v1::LayerSpec* layer = spec.add_layers();
    layer->set_kv_heads(2);
    layer->set_k_head_dim(16);
    layer->set_v_head_dim(16);
    layer->set_query_heads(4);
  }
  spec.mutable_rope()->set_pairing(v1::RopeSpec::PAIRING_INTERLEAVED);
  spec.mutable_rope()->set_theta(10'000);
  spec.mutable_rope()->set_rotated_dims(16);
  spec.set_vocabulary_size(1000);
  spec.add_separator_token_ids(1);
  spec.set_slots_per_block(16);
  spec.set_weights_digest(std::string(32, 'r'));
  return spec;
}

RawEngine::RawEngine(const std::string& control_socket, const std::string& data_socket,
                     uint32_t layers) {
  absl::StatusOr<RawDataSocket> data = RawDataSocket::Connect(data_socket);
  EXPECT_TRUE(data.ok()) << MessageOf(data.status());
  data_ = *std::move(data);
  const absl::Status greeted = data_.Greet(GoodHello());
  EXPECT_TRUE(greeted.ok()) << MessageOf(greeted);
  calls_ = std::make_unique<RawCalls>(control_socket, data_.token());
  v1::RegisterModelRequest request;
  *request.mutable_spec() = GoodSpec(static_cast<int>(layers));
  v1::RegisterModelResponse model;
  grpc::Status status = calls_->Call(&v1::KvCache::Stub::RegisterModel, request, &model);
  EXPECT_TRUE(status.ok()) << status.error_message();
  model_id_ = model.model_id();
  const absl::StatusOr<RawDataSocket::SentExtent> extent = data_.ReceiveExtent();
  EXPECT_TRUE(extent.ok()) << MessageOf(extent.status());
  absl::StatusOr<MappedRegion> map =
      MappedRegion::Map(extent->fd, extent->notice.bytes, Access::kReadWrite);
  EXPECT_TRUE(map.ok()) << MessageOf(map.status());
  extent_ = *std::move(map);
  geometry_ = shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>(layers, {64, 64}), 16);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (uint32_t slot = 0; slot < 8; ++slot) {
      for (uint32_t b = 0; b < 64; ++b) {
        std::byte* const base = extent_.data() + model.probe_offset() + uint64_t{slot} * 64 + b;
        base[geometry_.k_off[layer]] = std::byte{shm::ProbeByte(5, layer, 0, slot, b)};
        base[geometry_.v_off[layer]] = std::byte{shm::ProbeByte(5, layer, 1, slot, b)};
      }
    }
  }
  v1::ProbeLayoutRequest probe;
  probe.set_model_id(model_id_);
  probe.set_seed(5);
  v1::ProbeLayoutResponse probed;
  status = calls_->Call(&v1::KvCache::Stub::ProbeLayout, probe, &probed);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

v1::OpenSequenceResponse RawEngine::Open(const std::string& retention) {
  v1::OpenSequenceRequest request;
  request.set_model_id(model_id_);
  request.set_retention(retention);
  v1::OpenSequenceResponse response;
  const grpc::Status status = calls_->Call(&v1::KvCache::Stub::OpenSequence, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

void RawEngine::SetDesk(const v1::OpenSequenceResponse& sequence, uint64_t rows, uint64_t adopted) {
  shm::SeqDesk& desk = data_.desk(sequence.sequence());
  desk.rows.store(rows);
  desk.adopted.store(adopted);
  desk.uid.store(sequence.uid());
}

void RawEngine::WriteToken(const v1::OpenSequenceResponse& sequence, uint64_t row, uint32_t id) {
  const shm::SeqBoard& board = data_.board(sequence.sequence());
  const auto* dir = reinterpret_cast<const shm::RecentRef*>(
      reinterpret_cast<const std::byte*>(&data_.header()) + board.dir_off);
  const shm::RecentRef& ref = dir[row / 16];
  ASSERT_EQ(ref.extent, 0U);
  std::memcpy(extent_.data() + ref.group_off + geometry_.tok_off + 4 * (row % 16), &id, 4);
}

absl::Status RawEngine::Sync(const v1::OpenSequenceResponse& sequence, uint64_t granted_rows,
                             std::optional<uint64_t> table_row) {
  v1::SyncRequest request;
  v1::SyncNeed* need = request.add_needs();
  need->set_sequence(sequence.sequence());
  need->set_uid(sequence.uid());
  need->set_granted_rows(granted_rows);
  need->set_has_table_row(table_row.has_value());
  need->set_table_row(table_row.value_or(0));
  v1::SyncResponse response;
  const grpc::Status status = calls_->Call(&v1::KvCache::Stub::Sync, request, &response);
  if (!status.ok()) {
    return MakeError(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  return MakeError(static_cast<absl::StatusCode>(response.results(0).code()),
                   response.results(0).message());
}

}  // namespace kvasir::testing
