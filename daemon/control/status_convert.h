// absl::Status -> grpc::Status: the only place. The codes are the same numbers on both sides.
#ifndef KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_
#define KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_

#include <chrono>

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include "base/shortage.h"
#include "kvasir/v1/types.pb.h"

namespace kvasir {

// When to ask again where nothing else is known.
inline constexpr std::chrono::milliseconds kRetryAfter{100};

// What is behind a kResourceExhausted goes along, as google.rpc's rich errors do.
grpc::Status ToGrpc(const absl::Status& status);

void Fill(const Shortage& shortage, v1::Shortage* out);

// 0 for what is no kResourceExhausted.
uint32_t RetryMsOf(const absl::Status& status);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_
