// The envelope of what an eviction policy has learned: who it is of, and that it is whole.
//
// That of base/state_codec.h, with magic "KVLEARND" and the policy's name. Its checksum finds
// damage and no forgery: whoever reads a body checks every field of it. Pure functions;
// thread-safe. Cost: one pass over the bytes.
#ifndef KVASIR_EVICTION_LEARNED_STATE_H_
#define KVASIR_EVICTION_LEARNED_STATE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

namespace kvasir::eviction {

inline constexpr uint64_t kLearnedBytesMax = uint64_t{1} << 20;  // of all with its envelope

std::string SealLearned(std::string_view policy, std::string_view body);

// The body in `bytes`. Errors: kDataLoss naming what is cut or damaged, kInvalidArgument for
// another policy or version, or more bytes than kLearnedBytesMax.
absl::StatusOr<std::string_view> OpenLearned(std::string_view policy, std::string_view bytes);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_LEARNED_STATE_H_
