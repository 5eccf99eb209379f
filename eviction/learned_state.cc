#include "eviction/learned_state.h"

#include "base/error.h"

#include <xxhash.h>

namespace kvasir::eviction {
namespace {

constexpr std::string_view kMagic = "KVLEARND";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 24, kChecksumBytes = 16;

std::string ChecksumOf(std::string_view bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  return {reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)};
}

}  // namespace

void AppendNumber(std::string& bytes, uint64_t number) {
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(number >> shift & 0xFF);
}

uint64_t TakeNumber(std::string_view& bytes) {
  uint64_t number = 0;
  for (size_t i = 8; i-- > 0;) number = number << 8 | static_cast<uint8_t>(bytes[i]);
  bytes.remove_prefix(8);
  return number;
}

std::string SealLearned(std::string_view policy, std::string_view body) {
  std::string bytes(kMagic);
  AppendNumber(bytes, kVersion | uint64_t{policy.size()} << 32);
  AppendNumber(bytes, body.size());
  bytes += policy;
  bytes += body;
  return bytes + ChecksumOf(bytes);
}

absl::StatusOr<std::string_view> OpenLearned(std::string_view policy, std::string_view bytes) {
  if (bytes.size() > kLearnedBytesMax) {
    return InvalidArgument("learned state is too long: bytes={} max={}", bytes.size(),
                           kLearnedBytesMax);
  }
  if (bytes.size() < kHeaderBytes + kChecksumBytes) {
    return DataLoss("learned state is cut: bytes={} min={}", bytes.size(),
                    kHeaderBytes + kChecksumBytes);
  }
  if (!bytes.starts_with(kMagic)) return DataLoss("no learned state: magic expected={}", kMagic);
  const std::string_view checked = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (ChecksumOf(checked) != bytes.substr(checked.size())) {
    return DataLoss("learned state is cut or damaged: checksum differs, bytes={}", bytes.size());
  }
  std::string_view rest = checked.substr(kMagic.size());
  const uint64_t version_and_name = TakeNumber(rest);
  const uint64_t body_bytes = TakeNumber(rest);
  if (const auto version = static_cast<uint32_t>(version_and_name); version != kVersion) {
    return InvalidArgument("learned state is of another version: version={} expected={}", version,
                           kVersion);
  }
  const uint64_t name_bytes = version_and_name >> 32;
  if (name_bytes > rest.size() || body_bytes != rest.size() - name_bytes) {
    return DataLoss("lengths in learned state do not add up: name={} body={} bytes={}", name_bytes,
                    body_bytes, rest.size());
  }
  if (const std::string_view name = rest.substr(0, name_bytes); name != policy) {
    return InvalidArgument("learned state is of another policy: eviction={} bytes_of_name={}",
                           policy, name_bytes);
  }
  return rest.substr(name_bytes);
}

}  // namespace kvasir::eviction
