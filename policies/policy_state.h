// How the state of a retention policy lies in bytes: the envelope (base/state_codec.h), the number
// of rows, then the body of each class, which begins with what it was made for.
//
// Plain values and pure functions; thread-safe.
#ifndef KVASIR_POLICIES_POLICY_STATE_H_
#define KVASIR_POLICIES_POLICY_STATE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/state_codec.h"
#include "policies/stay_rule.h"

namespace kvasir {

inline constexpr StateFormat kPolicyState{"KVPOLICY", 1, 64 * kMiB, "policy state", "class"};

// Rows and positions in a state lie below it, so that sums with a window or a record do not
// overflow.
inline constexpr uint64_t kStateRowsMax = uint64_t{1} << 48;

// The class of a policy and all settings that decide what it does: state goes on only where all of
// them are the same.
struct StateIdentity {
  struct Setting {
    const char* name;
    uint64_t value;
  };
  std::string_view policy;  // the class
  std::vector<Setting> settings;
};

void WriteIdentity(const StateIdentity& identity, StateWriter& writer);
// Errors: kInvalidArgument naming the class, or the setting and both values.
void ExpectIdentity(const StateIdentity& identity, StateReader& reader);

// Stand for what is too long to be a setting. Of a rule: 0 for none.
uint64_t DigestOfRule(const StayRule* rule);
uint64_t DigestOfIds(const std::vector<TokenId>& ids);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_POLICY_STATE_H_
