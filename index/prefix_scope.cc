#include "index/prefix_scope.h"

#include <array>
#include <string>

#include "base/check.h"

#include <sodium/crypto_generichash.h>

namespace kvasir {
namespace {

void AppendField(std::string_view field, std::string* message) {
  for (int shift = 0; shift < 64; shift += 8) {
    message->push_back(static_cast<char>(field.size() >> shift));
  }
  message->append(field);
}

ChainKey Digest(const ChainHasher::Secret& secret, const std::string& message) {
  std::array<uint8_t, kChainKeyBytes> out{};
  const int rc = ::crypto_generichash(out.data(), out.size(),
                                      reinterpret_cast<const unsigned char*>(message.data()),
                                      message.size(), secret.data(), secret.size());
  KVASIR_CHECK(rc == 0, "generichash failed: rc={}", rc);
  return ChainKey::FromBytes(out);
}

}  // namespace

ChainKey PrefixScope(const ChainHasher::Secret& secret, std::string_view tenant,
                     std::span<const uint8_t> model_fingerprint, std::string_view salt) {
  std::string message;
  AppendField("scope", &message);
  AppendField(tenant, &message);
  AppendField({reinterpret_cast<const char*>(model_fingerprint.data()), model_fingerprint.size()},
              &message);
  AppendField(salt, &message);
  return Digest(secret, message);
}

ChainKey PrefixForm(const ChainHasher::Secret& secret, std::string_view retention,
                    uint64_t prompt_rows) {
  std::string message;
  AppendField("form", &message);
  AppendField(retention, &message);
  AppendField(std::to_string(prompt_rows), &message);
  return Digest(secret, message);
}

ChainKey TenantKey(const ChainHasher::Secret& secret, std::string_view tenant) {
  std::string message;
  AppendField("tenant", &message);
  AppendField(tenant, &message);
  return Digest(secret, message);
}

}  // namespace kvasir
