#include "policies/policy_state.h"

namespace kvasir {

void WriteIdentity(const StateIdentity& identity, StateWriter& writer) {
  writer.Text(identity.policy);
  for (const StateIdentity::Setting& setting : identity.settings) writer.Number(setting.value);
}

void ExpectIdentity(const StateIdentity& identity, StateReader& reader) {
  reader.ExpectText("policy", identity.policy);
  for (const StateIdentity::Setting& setting : identity.settings) {
    reader.Expect(setting.name, setting.value);
  }
}

uint64_t DigestOfRule(const StayRule* rule) {
  return rule == nullptr ? 0 : DigestOf(rule->Description());
}

uint64_t DigestOfIds(const std::vector<TokenId>& ids) {
  StateWriter bytes;
  for (const TokenId id : ids) bytes.Id(id);
  return DigestOf(bytes.bytes());
}

}  // namespace kvasir
