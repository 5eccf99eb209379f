// How the rows of a lane are stored once they lie in records: the part of a policy spec behind '+'.
//
//   encoding = codec ["/" codec] [":" key "=" value {"," key "=" value}]
// one codec for K and V, or K's "/" V's: "int4", "tm64:k_bits=3.25,v_bits=2.75", "int8/tm64". Those
// of single rows are for V alone, beside K as written: "as_written/rot3".
//
// Plain values; pure functions. Errors: kInvalidArgument naming key, value and bound. Sources: KIVI
// (arXiv 2402.02750) for int8 and int4; docs/encodings.md for the others.
#ifndef KVASIR_POLICIES_ENCODING_SPEC_H_
#define KVASIR_POLICIES_ENCODING_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/policy_definition.h"
#include "policies/policy_spec.h"

namespace kvasir {

// Bits of a code are counted in this fraction of a bit.
inline constexpr uint32_t kBitFraction = 64;

// What the encodings can be named: name, summary, source and parameters of each.
const std::vector<PolicyInfo>& Encodings();

// `term` as an encoding for rows of policies that may be encoded as `encodable`; nothing for rows
// as written. `canonical`: the text with every default.
absl::StatusOr<std::optional<EncodingSpec>> MakeEncoding(const PolicyTerm& term,
                                                         const PolicyContext& context,
                                                         const Encodable& encodable,
                                                         std::string* canonical);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_ENCODING_SPEC_H_
