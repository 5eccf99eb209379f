#include "allocator/tier/index_entry.h"

#include <cstring>

#include "allocator/tier/tier.h"

#include <xxhash.h>

namespace kvasir {
namespace {

constexpr size_t kFixedBytes = 16;
constexpr size_t kRunBytes = 8;
constexpr size_t kChecksumBytes = 8;

uint64_t ChecksumOf(const TierKey& key, std::string_view value) {
  std::string text(key.view());
  text += value;
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace

std::string EncodeIndexEntry(const IndexEntry& entry) {
  std::string value(kFixedBytes + entry.runs.size() * kRunBytes, '\0');
  const uint64_t count = entry.runs.size();
  std::memcpy(value.data(), &entry.payload_bytes, 8);
  std::memcpy(value.data() + 8, &count, 8);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(value.data() + kFixedBytes + i * kRunBytes, &entry.runs[i].first, 4);
    std::memcpy(value.data() + kFixedBytes + i * kRunBytes + 4, &entry.runs[i].count, 4);
  }
  const uint64_t checksum = ChecksumOf(entry.key, value);
  value.append(reinterpret_cast<const char*>(&checksum), kChecksumBytes);
  return value;
}

bool DecodeIndexEntry(std::string_view key, std::string_view value, IndexEntry* entry) {
  if (key.size() != kTierKeyBytes || value.size() < kFixedBytes + kChecksumBytes) return false;
  std::memcpy(entry->key.bytes.data(), key.data(), key.size());
  const std::string_view body = value.substr(0, value.size() - kChecksumBytes);
  uint64_t checksum = 0, count = 0;
  std::memcpy(&checksum, value.data() + body.size(), kChecksumBytes);
  std::memcpy(&entry->payload_bytes, body.data(), 8);
  std::memcpy(&count, body.data() + 8, 8);
  if (checksum != ChecksumOf(entry->key, body)) return false;
  if (count != (body.size() - kFixedBytes) / kRunBytes) return false;
  if (entry->payload_bytes == 0 || entry->payload_bytes > kTierPayloadBytesMax) return false;
  entry->runs.resize(count);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(&entry->runs[i].first, body.data() + kFixedBytes + i * kRunBytes, 4);
    std::memcpy(&entry->runs[i].count, body.data() + kFixedBytes + i * kRunBytes + 4, 4);
  }
  return true;
}

}  // namespace kvasir
