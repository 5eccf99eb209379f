#include "client/control_channel.h"

#include <utility>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/error.h"
#include "base/shortage.h"

#include <grpc/support/time.h>

namespace kvasir {
namespace {

constexpr int kFrameBytesMax = 1 << 20;

}  // namespace

ControlChannel::ControlChannel(const std::string& socket_path, std::string token_hex,
                               std::chrono::milliseconds deadline)
    : token_hex_(std::move(token_hex)), deadline_(deadline) {
  grpc::ChannelArguments arguments;
  // A connection of its own: its credentials are this process's, whoever else talks to the daemon.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytesMax);  // a long prompt is one frame
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      "unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::KvCache::NewStub(channel);
  admin_ = v1::Admin::NewStub(channel);
}

void ControlChannel::Prepare(grpc::ClientContext& context) {
  calls_.fetch_add(1, std::memory_order_relaxed);
  context.AddMetadata("kvasir-session-token", token_hex_);
  context.set_deadline(::gpr_time_add(::gpr_now(GPR_CLOCK_MONOTONIC),
                                      ::gpr_time_from_millis(deadline_.count(), GPR_TIMESPAN)));
}

absl::Status ControlChannel::FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // This side never cancels a call: a daemon that stops does.
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return Unavailable("the daemon is stopping: {}", status.error_message());
  }
  // The token came from the daemon: one that does not know it has ended the session, or is another
  // one.
  if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    return Unavailable("the daemon ended the session: {}", status.error_message());
  }
  absl::Status error =
      MakeError(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::StatusWithDetails details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (const v1::StatusWithDetails::Detail& one : details.details()) {
      v1::Shortage shortage;
      if (!one.type_url().ends_with("/kvasir.v1.Shortage")) continue;
      if (shortage.ParseFromString(one.value())) AttachTo(shortage, &error);
    }
  }
  return error;
}

void AttachTo(const v1::Shortage& shortage, absl::Status* status) {
  // Another text than a line is not the daemon's.
  const bool lines = shortage.budget().find('\n') != std::string::npos ||
                     shortage.holder().find('\n') != std::string::npos;
  if (status->ok() || lines) return;
  AttachShortage({shortage.budget(), shortage.missing(), shortage.holder(),
                  std::chrono::milliseconds(shortage.retry_after_ms())},
                 status);
}

}  // namespace kvasir
