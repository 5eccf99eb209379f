// What prefixes must share beside tokens, as keys.
//
// The scope is hashed into every key of a chain: tenant, model fingerprint (digests of weights and
// adapters, layout, rope, type) and the engine's salt. So the same tokens of two tenants, models or
// salts never meet. The form is what the policy made of the rows. It is not in the chain: one chain
// finds every form of a prefix, and a form's blocks are told apart by InForm().
//
// Pure functions; thread-safe. Source of the hash: BLAKE2b with a key (RFC 7693), libsodium's
// crypto_generichash, 16 bytes, over the fields with their lengths before them.
#ifndef KVASIR_INDEX_PREFIX_SCOPE_H_
#define KVASIR_INDEX_PREFIX_SCOPE_H_

#include <span>
#include <string_view>

#include "index/chain_hasher.h"
#include "index/chain_key.h"

namespace kvasir {

inline constexpr size_t kSaltBytesMax = 256;

ChainKey PrefixScope(const ChainHasher::Secret& secret, std::string_view tenant,
                     std::span<const uint8_t> model_fingerprint, std::string_view salt);

// `prompt_rows`: where the policy tells the prompt apart, else 0.
ChainKey PrefixForm(const ChainHasher::Secret& secret, std::string_view retention,
                    uint64_t prompt_rows);

// Stands for a tenant where its name is not to be read.
ChainKey TenantKey(const ChainHasher::Secret& secret, std::string_view tenant);

// Keys are outputs of a keyed hash, so those of two forms are as different as any two.
inline ChainKey InForm(const ChainKey& key, const ChainKey& form) {
  return {key.low ^ form.low, key.high ^ form.high};
}

}  // namespace kvasir

#endif  // KVASIR_INDEX_PREFIX_SCOPE_H_
