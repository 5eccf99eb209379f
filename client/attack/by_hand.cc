#include "client/attack/by_hand.h"

#include <errno.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <utility>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/group_geometry.h"
#include "proto/shm/probe_pattern.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

constexpr int kWaitMs = 10'000;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& control_socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + control_socket, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

absl::Status ToStatus(const grpc::Status& status) {
  return MakeError(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

shm::Hello GoodHello() {
  shm::Hello hello{};
  hello.magic = shm::kHelloMagic;
  hello.kind = static_cast<uint32_t>(shm::MessageKind::kHello);
  hello.abi_min = hello.abi_max = shm::kAbiVersion;
  return hello;
}

absl::StatusOr<DataSocket> DataSocket::Connect(const std::string& path) {
  DataSocket socket;
  KVASIR_ASSIGN_OR_RETURN(socket.socket_, ConnectUnix(path, SocketType::kSeqPacket));
  return socket;
}

absl::Status DataSocket::Send(const void* bytes, uint64_t count) {
  if (::send(socket_.get(), bytes, count, MSG_NOSIGNAL) < 0) return ErrnoStatus(errno, "send");
  return absl::OkStatus();
}

absl::StatusOr<ReceivedMessage> DataSocket::Receive(void* buffer, uint64_t bytes) {
  KVASIR_ASSIGN_OR_RETURN(const bool readable, WaitReadable(socket_.get(), kWaitMs));
  if (!readable) return DeadlineExceeded("nothing on the data socket");
  return ReceiveMessage(socket_, {static_cast<std::byte*>(buffer), bytes});
}

absl::Status DataSocket::Greet(const shm::Hello& hello) {
  KVASIR_RETURN_IF_ERROR(Send(&hello, sizeof(hello)));
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

bool DataSocket::IsHungUp() {
  for (;;) {
    shm::Refusal message{};
    const absl::StatusOr<ReceivedMessage> received = Receive(&message, sizeof(message));
    if (received.status().code() == absl::StatusCode::kDeadlineExceeded) return false;
    if (!received.ok() || received->bytes == 0) return true;
  }
}

absl::StatusOr<DataSocket::SentExtent> DataSocket::ReceiveExtent() {
  SentExtent extent;
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, Receive(&extent.notice, sizeof(extent.notice)));
  if (message.bytes != sizeof(extent.notice) || message.fds.size() != 1) {
    return Internal("no extent: bytes={} fds={}", message.bytes, message.fds.size());
  }
  extent.fd = std::move(message.fds[0]);
  return extent;
}

Calls::Calls(const std::string& control_socket, std::string token_hex)
    : token_hex_(std::move(token_hex)),
      channel_(MakeChannel(control_socket)),
      kv_cache_(v1::KvCache::NewStub(channel_)),
      admin_(v1::Admin::NewStub(channel_)) {}

void Calls::Prepare(grpc::ClientContext& context) const {
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

absl::StatusOr<Engine> Engine::Start(const std::string& control_socket,
                                     const std::string& data_socket, uint32_t layers) {
  Engine engine;
  KVASIR_ASSIGN_OR_RETURN(engine.data_, DataSocket::Connect(data_socket));
  KVASIR_RETURN_IF_ERROR(engine.data_.Greet(GoodHello()));
  engine.calls_ = std::make_unique<Calls>(control_socket, engine.data_.token());
  v1::RegisterModelRequest request;
  *request.mutable_spec() = GoodSpec(static_cast<int>(layers));
  v1::RegisterModelResponse model;
  KVASIR_RETURN_IF_ERROR(
      ToStatus(engine.calls_->Call(&v1::KvCache::Stub::RegisterModel, request, &model)));
  engine.model_id_ = model.model_id();
  KVASIR_ASSIGN_OR_RETURN(DataSocket::SentExtent extent, engine.data_.ReceiveExtent());
  engine.extent_fd_ = std::move(extent.fd);
  KVASIR_ASSIGN_OR_RETURN(engine.extent_, MappedRegion::Map(engine.extent_fd_, extent.notice.bytes,
                                                            Access::kReadWrite));
  engine.geometry_ = shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>(layers, {64, 64}), 16);
  const shm::GroupGeometry& geometry = engine.geometry_;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (uint32_t slot = 0; slot < 8; ++slot) {
      for (uint32_t b = 0; b < 64; ++b) {
        std::byte* const base =
            engine.extent_.data() + model.probe_offset() + uint64_t{slot} * 64 + b;
        base[geometry.k_off[layer]] = std::byte{shm::ProbeByte(5, layer, 0, slot, b)};
        base[geometry.v_off[layer]] = std::byte{shm::ProbeByte(5, layer, 1, slot, b)};
      }
    }
  }
  v1::ProbeLayoutRequest probe;
  probe.set_model_id(engine.model_id_);
  probe.set_seed(5);
  v1::ProbeLayoutResponse probed;
  KVASIR_RETURN_IF_ERROR(
      ToStatus(engine.calls_->Call(&v1::KvCache::Stub::ProbeLayout, probe, &probed)));
  return engine;
}

absl::StatusOr<v1::OpenSequenceResponse> Engine::Open(const std::string& retention) {
  v1::OpenSequenceRequest request;
  request.set_model_id(model_id_);
  request.set_retention(retention);
  v1::OpenSequenceResponse response;
  KVASIR_RETURN_IF_ERROR(
      ToStatus(calls_->Call(&v1::KvCache::Stub::OpenSequence, request, &response)));
  return response;
}

void Engine::SetDesk(const v1::OpenSequenceResponse& sequence, uint64_t rows, uint64_t adopted) {
  shm::SeqDesk& desk = data_.desk(sequence.sequence());
  desk.rows.store(rows);
  desk.adopted.store(adopted);
  desk.uid.store(sequence.uid());
}

bool Engine::WriteToken(const v1::OpenSequenceResponse& sequence, uint64_t row, uint32_t id) {
  const shm::SeqBoard& board = data_.board(sequence.sequence());
  const auto* dir = reinterpret_cast<const shm::RecentRef*>(
      reinterpret_cast<const std::byte*>(&data_.header()) + board.dir_off);
  const shm::RecentRef& ref = dir[row / 16];
  if (ref.extent != 0) return false;
  std::memcpy(extent_.data() + ref.group_off + geometry_.tok_off + 4 * (row % 16), &id, 4);
  return true;
}

absl::Status Engine::Sync(const v1::OpenSequenceResponse& sequence, uint64_t granted_rows,
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
  if (!status.ok()) return ToStatus(status);
  if (response.results_size() != 1) return Internal("results={}", response.results_size());
  return MakeError(static_cast<absl::StatusCode>(response.results(0).code()),
                   response.results(0).message());
}

}  // namespace kvasir::attack
