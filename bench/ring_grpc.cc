#include "bench/ring_grpc.h"

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/layout.h"

#include <fmt/format.h>
#include <sched.h>

namespace kvasir::bench {
namespace {

constexpr int kDeadlineMs = 10'000;

// Every thread that the process has.
void PinProcess(int pid, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  std::error_code ignored;
  for (const auto& task :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
    (void)::sched_setaffinity(std::stoi(task.path().filename()), sizeof(set), &set);
  }
}

// Says hello on the data socket; the session's token in hex.
absl::StatusOr<std::string> Greet(const UniqueFd& socket) {
  shm::Hello hello{};
  hello.magic = shm::kHelloMagic;
  hello.kind = static_cast<uint32_t>(shm::MessageKind::kHello);
  hello.abi_min = hello.abi_max = shm::kAbiVersion;
  KVASIR_RETURN_IF_ERROR(SendMessage(socket, std::as_bytes(std::span(&hello, 1)), {}));
  KVASIR_ASSIGN_OR_RETURN(const bool readable, WaitReadable(socket.get(), kDeadlineMs));
  std::array<std::byte, 512> buffer{};
  shm::Welcome welcome{};
  if (readable) {
    KVASIR_ASSIGN_OR_RETURN(const ReceivedMessage message, ReceiveMessage(socket, buffer));
    std::memcpy(&welcome, buffer.data(), sizeof(welcome));
    if (message.bytes != sizeof(welcome)) welcome.kind = 0;
  }
  if (welcome.kind != static_cast<uint32_t>(shm::MessageKind::kWelcome)) {
    return Unavailable("the daemon does not welcome this process");
  }
  std::string hex;
  for (const uint8_t byte : welcome.token) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcExchange>> GrpcExchange::Start(int cpu) {
  auto exchange = std::make_unique<GrpcExchange>();
  KVASIR_ASSIGN_OR_RETURN(exchange->daemon_, DaemonProcess::Start(64 * kMiB, 16 * kMiB));
  if (cpu >= 0) PinProcess(exchange->daemon_->pid(), cpu);
  const ConnectOptions options = exchange->daemon_->connect_options();
  KVASIR_ASSIGN_OR_RETURN(exchange->socket_,
                          ConnectUnix(options.data_socket, SocketType::kSeqPacket));
  KVASIR_ASSIGN_OR_RETURN(const std::string token, Greet(exchange->socket_));
  exchange->channel_ = std::make_unique<ControlChannel>(options.control_socket, token,
                                                        std::chrono::milliseconds(kDeadlineMs));
  return exchange;
}

absl::Status GrpcExchange::Call() {
  v1::SyncRequest request;
  v1::SyncNeed* const need = request.add_needs();
  need->set_sequence(1);
  need->set_uid(2);
  v1::SyncResponse response;
  KVASIR_RETURN_IF_ERROR(channel_->Call(&v1::KvCache::Stub::Sync, request, &response));
  if (response.results_size() == 1 &&
      response.results(0).code() == static_cast<int>(absl::StatusCode::kNotFound)) {
    return absl::OkStatus();
  }
  return Internal("the daemon answered in another way: results={}", response.results_size());
}

}  // namespace kvasir::bench
