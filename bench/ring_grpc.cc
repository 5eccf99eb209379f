#include "bench/ring_grpc.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <thread>

#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/layout.h"

#include <fmt/format.h>
#include <sched.h>
#include <spawn.h>
#include <stdlib.h>

extern char** environ;

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

class EmptyService final : public v1::KvCache::WithCallbackMethod_Sync<v1::KvCache::Service> {
 public:
  grpc::ServerUnaryReactor* Sync(grpc::CallbackServerContext* context, const v1::SyncRequest*,
                                 v1::SyncResponse*) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

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

absl::Status EmptyGrpcExchange::Serve(const std::string& path) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  EmptyService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return Internal("gRPC could not be started: path={}", path);
  server->Wait();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EmptyGrpcExchange>> EmptyGrpcExchange::Start(int cpu) {
  std::unique_ptr<EmptyGrpcExchange> exchange(new EmptyGrpcExchange);
  std::string folder = (std::filesystem::temp_directory_path() / "kvasir-grpc-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
  exchange->folder_ = folder;
  std::string program = "/proc/self/exe", option = kOption, path = folder + "/socket";
  char* const arguments[] = {program.data(), option.data(), path.data(), nullptr};
  const int error =
      ::posix_spawn(&exchange->pid_, program.c_str(), nullptr, nullptr, arguments, environ);
  if (error != 0) return ErrnoStatus(error, "posix_spawn of an empty server");
  grpc::ChannelArguments channel;
  channel.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  exchange->stub_ = v1::KvCache::NewStub(
      grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), channel));
  exchange->channel_ = std::make_unique<ControlChannel>(path, std::string(32, '0'),
                                                        std::chrono::milliseconds(kDeadlineMs));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!std::filesystem::exists(path)) {
    if (std::chrono::steady_clock::now() > deadline) {
      return Unavailable("the empty server did not start: path={}", path);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  KVASIR_RETURN_IF_ERROR(exchange->CallBare());
  KVASIR_RETURN_IF_ERROR(exchange->CallPrepared());
  if (cpu >= 0) PinProcess(exchange->pid_, cpu);
  return exchange;
}

EmptyGrpcExchange::~EmptyGrpcExchange() {
  if (pid_ > 0) {
    (void)::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

absl::Status EmptyGrpcExchange::CallBare() {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  v1::SyncResponse response;
  const grpc::Status status = stub_->Sync(&context, v1::SyncRequest(), &response);
  return status.ok() ? absl::OkStatus() : Internal("an empty call: {}", status.error_message());
}

absl::Status EmptyGrpcExchange::CallPrepared() {
  v1::SyncResponse response;
  return channel_->Call(&v1::KvCache::Stub::Sync, v1::SyncRequest(), &response);
}

}  // namespace kvasir::bench
