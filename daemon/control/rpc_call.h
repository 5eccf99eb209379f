// RpcCall: one gRPC call, from when its message is here until its answer has gone.
//
// It has no thread: what is to be done for it are tasks of a CallExecutor. Also the request is
// decoded there, as a turn of its caller, since a long one takes milliseconds. The first task of a
// short one runs at once, on gRPC's thread, while there is nobody whom that could keep waiting.
#ifndef KVASIR_DAEMON_CONTROL_RPC_CALL_H_
#define KVASIR_DAEMON_CONTROL_RPC_CALL_H_

#include <atomic>
#include <optional>
#include <string_view>
#include <utility>

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "base/error.h"
#include "daemon/control/audit_log.h"
#include "daemon/control/call_executor.h"
#include "daemon/control/caller.h"
#include "daemon/control/paced_reader.h"
#include "daemon/control/status_convert.h"
#include "daemon/control/verb_trial.h"

namespace kvasir {

// Owned by gRPC, which has it destroyed behind the answer. One thread at a time, but for what gRPC
// calls.
class PendingCall : public grpc::ServerUnaryReactor {
 public:
  const grpc::CallbackServerContext& context() const { return context_; }
  const CallerRegistry::Caller& caller() const { return caller_; }
  CallExecutor& executor() const { return executor_; }
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // In which it begins: a long message takes long to decode, and may take long to understand.
  CallExecutor::Length length() const { return length_; }
  // Of what KvCacheService tries.
  VerbTrial& trial() { return trial_; }

  // Sends the answer, or the error alone. Nobody may touch the call behind it.
  virtual void End(const grpc::Status& status) = 0;
  void End(const absl::Status& status) { End(ToGrpc(status)); }

 protected:
  PendingCall(grpc::CallbackServerContext& context, CallExecutor& executor, size_t request_bytes)
      : context_(context),
        executor_(executor),
        length_(request_bytes > kLongBytes ? CallExecutor::kLong : CallExecutor::kShort) {}
  ~PendingCall() override = default;

  // From here on it counts as one of the caller's. Errors: CallExecutor::Enter()'s.
  absl::Status Enter(CallerRegistry::Caller caller) {
    caller_ = std::move(caller);
    absl::StatusOr<CallExecutor::Place> place = executor_.Enter(caller_.slot);
    if (!place.ok()) return place.status();
    place_.emplace(*std::move(place));
    return absl::OkStatus();
  }
  void Leave() { place_.reset(); }

 private:
  static constexpr size_t kLongBytes = 64 << 10;

  void OnCancel() override {
    cancelled_ = true;
    executor_.NoteCancelled(&cancelled_);
  }
  void OnDone() override { delete this; }

  grpc::CallbackServerContext& context_;
  CallExecutor& executor_;
  const CallExecutor::Length length_;
  CallerRegistry::Caller caller_;
  std::optional<CallExecutor::Place> place_;
  std::atomic<bool> cancelled_ = false;
  VerbTrial trial_;
};

template <typename Request, typename Response>
class RpcCall final : public PendingCall {
 public:
  using Handler = absl::AnyInvocable<void(RpcCall&)>;
  using PendingCall::End;

  // Begins a call for a method of a raw callback service, and returns what gRPC is to be given.
  // `handler` ends it, sooner or later. `act`: of refusals, in the audit log.
  static grpc::ServerUnaryReactor* Start(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response, CallExecutor& executor,
                                         const CallerRegistry& callers, AuditLog& audit,
                                         std::string_view act, Handler handler) {
    auto* const call = new RpcCall(*context, executor, *request, *response);
    absl::StatusOr<CallerRegistry::Caller> caller = callers.CallerOf(context->peer());
    if (!caller.ok()) {
      audit.NoteRefusal({act, std::nullopt, "", {}}, caller.status());
      call->End(ToGrpc(caller.status()));
      return call;
    }
    const size_t slot = caller->slot;
    const absl::Status entered = call->Enter(*std::move(caller));
    if (!entered.ok()) {
      // Also a refusal waits for the caller's share: who is refused at once asks again at once.
      executor.Run(slot, [call, entered] { call->End(ToGrpc(entered)); });
      return call;
    }
    const CallExecutor::Length length = call->length();
    CallExecutor::Task begin = [call, handler = std::move(handler)]() mutable {
      call->Begin(handler);
    };
    // gRPC has two threads for all connections: on them, what is quickly decoded. It may end the
    // call, which gRPC then keeps until it has been given.
    if (request->Length() <= kHereBytes) {
      executor.RunHere(slot, std::move(begin));
    } else {
      executor.Run(slot, std::move(begin), length);
    }
    return call;
  }

  const Request& request() const { return request_; }
  Response* response() { return &response_; }

  void End(const grpc::Status& status) override {
    grpc::Status sent = status;
    if (status.ok()) {
      bool own = false;
      sent = grpc::SerializationTraits<Response>::Serialize(response_, &response_bytes_, &own);
    }
    Leave();  // before the caller can know of it
    Finish(sent);
  }

 private:
  RpcCall(grpc::CallbackServerContext& context, CallExecutor& executor,
          const grpc::ByteBuffer& request, grpc::ByteBuffer& response)
      : PendingCall(context, executor, request.Length()),
        request_bytes_(request),
        response_bytes_(response) {}

  static constexpr size_t kHereBytes = 4 << 10;

  void Begin(Handler& handler) {
    if (cancelled()) return End(grpc::Status::CANCELLED);
    const grpc::Status decoded =
        grpc::GenericDeserialize<PacedReader, Request>(&request_bytes_, &request_);
    if (!decoded.ok()) return End(decoded);
    handler(*this);
  }

  grpc::ByteBuffer request_bytes_;  // shares what gRPC has, until it is decoded
  grpc::ByteBuffer& response_bytes_;
  Request request_;
  Response response_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_RPC_CALL_H_
