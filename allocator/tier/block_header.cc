#include "allocator/tier/block_header.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // picks AVX2 or AVX-512 at run time; the plain header is SSE2
#endif
#include <xxhash.h>

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little, "headers are written as they lie");

constexpr std::array<char, 8> kMagic = {'K', 'V', 'A', 'S', 'I', 'R', 'B', 'K'};
constexpr size_t kVersionAt = 8;
constexpr size_t kHeaderBytesAt = 12;
constexpr size_t kFingerprintAt = 16;
constexpr size_t kKeyAt = 24;
constexpr size_t kPayloadBytesAt = 64;
constexpr size_t kChecksumAt = 112;
static_assert(kKeyAt + kTierKeyBytes == kPayloadBytesAt);
static_assert(kChecksumAt + BlockChecksum::kBytes == kBlockHeaderBytes);

// Large enough that the calls cost nothing, small enough for the first-level cache.
constexpr size_t kCopyBytes = 16 << 10;

template <typename T>
void Put(BlockHeader& header, size_t at, const T& value) {
  std::memcpy(header.data() + at, &value, sizeof(value));
}

template <typename T>
T Get(const BlockHeader& header, size_t at) {
  T value;
  std::memcpy(&value, header.data() + at, sizeof(value));
  return value;
}

}  // namespace

uint64_t BytesOf(ByteParts parts) {
  uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  return bytes;
}

BlockChecksum::BlockChecksum() : state_(XXH3_createState()) {
  KVASIR_CHECK(state_ != nullptr, "no memory for a checksum");
}

void BlockChecksum::FreeState::operator()(XXH3_state_s* state) const {
  (void)XXH3_freeState(state);
}

void BlockChecksum::Begin(const BlockHeader& header) {
  (void)XXH3_128bits_reset(state_.get());
  Add(std::span(header).first<kChecksumAt>());
}

void BlockChecksum::Add(std::span<const std::byte> bytes) {
  (void)XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
}

void BlockChecksum::CopyAndAdd(std::span<const std::byte> from, std::byte* to) {
  for (size_t at = 0; at < from.size(); at += kCopyBytes) {
    const size_t bytes = std::min(kCopyBytes, from.size() - at);
    std::memcpy(to + at, from.data() + at, bytes);
    Add({to + at, bytes});
  }
}

std::array<std::byte, BlockChecksum::kBytes> BlockChecksum::Finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  std::array<std::byte, kBytes> bytes;
  std::memcpy(bytes.data(), &hash.low64, 8);
  std::memcpy(bytes.data() + 8, &hash.high64, 8);
  return bytes;
}

BlockHeader MakeHeader(uint64_t fingerprint, const TierKey& key, uint64_t payload_bytes) {
  BlockHeader header{};
  Put(header, 0, kMagic);
  Put(header, kVersionAt, kBlockHeaderVersion);
  Put(header, kHeaderBytesAt, static_cast<uint32_t>(kBlockHeaderBytes));
  Put(header, kFingerprintAt, fingerprint);
  Put(header, kKeyAt, key.bytes);
  Put(header, kPayloadBytesAt, payload_bytes);
  return header;
}

void FinishHeader(BlockHeader& header, const BlockChecksum& checksum) {
  Put(header, kChecksumAt, checksum.Finish());
}

BlockHeader SealHeader(uint64_t fingerprint, const TierKey& key, ByteParts parts,
                       BlockChecksum& checksum) {
  BlockHeader header = MakeHeader(fingerprint, key, BytesOf(parts));
  checksum.Begin(header);
  for (const auto& part : parts) checksum.Add(part);
  FinishHeader(header, checksum);
  return header;
}

ReadOutcome CheckHeader(const BlockHeader& header, uint64_t fingerprint, const TierKey& key,
                        uint64_t payload_bytes) {
  if (Get<std::array<char, 8>>(header, 0) != kMagic) return ReadOutcome::kCorrupt;
  if (Get<uint32_t>(header, kVersionAt) != kBlockHeaderVersion) return ReadOutcome::kOldVersion;
  if (Get<uint64_t>(header, kFingerprintAt) != fingerprint) return ReadOutcome::kForeignFormat;
  if (Get<decltype(key.bytes)>(header, kKeyAt) != key.bytes) return ReadOutcome::kForeignKey;
  const auto written = Get<uint64_t>(header, kPayloadBytesAt);
  if (written > payload_bytes) return ReadOutcome::kCut;
  return written == payload_bytes ? ReadOutcome::kHit : ReadOutcome::kCorrupt;
}

ReadOutcome CheckSum(const BlockHeader& header, const BlockChecksum& checksum) {
  return Get<std::array<std::byte, BlockChecksum::kBytes>>(header, kChecksumAt) == checksum.Finish()
             ? ReadOutcome::kHit
             : ReadOutcome::kCorrupt;
}

}  // namespace kvasir
