// What was measured of a model once and makes its encoded rows better: which channels its queries
// look at, and how many bits each layer deserves.
//
// A file of `kvasir-generate --profile`, read here; plain immutable values. See docs/encodings.md.
#ifndef KVASIR_DAEMON_CORE_MODEL_PROFILE_H_
#define KVASIR_DAEMON_CORE_MODEL_PROFILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "daemon/core/model.h"

namespace kvasir::core {

inline constexpr uint64_t kProfileBytesMax = uint64_t{64} << 20;

struct ModelProfile {
  std::string weights_digest;  // of the model it was measured on, in hexadecimal digits
  std::string digest;          // of the file: 8 hexadecimal digits
  // [layer][kv_head][channel]: mean square of the queries that meet the channel, relative to the
  // head's mean. Channels in the order of the rows.
  std::vector<std::vector<std::vector<float>>> weights;
  // [layer]: bits of an element above the mean over the layers.
  std::vector<double> k_bits, v_bits;
};

// Errors: kInvalidArgument naming the field and its bound.
absl::StatusOr<ModelProfile> ParseModelProfile(std::string_view text);

// Whether `profile` is of a model of this shape. Errors: kInvalidArgument naming what differs.
absl::Status CheckProfileFits(const ModelProfile& profile, const ModelDescription& model);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_MODEL_PROFILE_H_
