#include "client/control_channel.h"

#include <utility>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/error.h"

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
  stub_ = v1::KvCache::NewStub(grpc::CreateCustomChannel(
      "unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments));
}

void ControlChannel::Prepare(grpc::ClientContext& context) const {
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
  return MakeError(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace kvasir
