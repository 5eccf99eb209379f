#include "daemon/core/stored_rows.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir::core {
namespace {

constexpr size_t kNameAt = 16, kPartAt = 32, kPartBytes = 8;

}  // namespace

TierKey MakeTierKey(const ChainKey& tenant, const std::array<uint8_t, 16>& name,
                    std::string_view part) {
  KVASIR_CHECK(part.size() <= kPartBytes, "part={}", part);
  TierKey key;
  const std::array<uint8_t, kChainKeyBytes> first = tenant.ToBytes();
  std::copy(first.begin(), first.end(), key.bytes.begin());
  std::copy(name.begin(), name.end(), key.bytes.begin() + kNameAt);
  std::copy(part.begin(), part.end(), key.bytes.begin() + kPartAt);
  return key;
}

bool IsManifest(const TierKey& key) {
  return key.view().substr(kPartAt, kPartBytes) == kManifestPart;
}

std::array<uint8_t, 16> NameIn(const TierKey& key) {
  std::array<uint8_t, 16> name{};
  std::copy_n(key.bytes.begin() + kNameAt, name.size(), name.begin());
  return name;
}

bool IsOfTenant(const TierKey& key, const ChainKey& tenant) {
  const std::array<uint8_t, kChainKeyBytes> first = tenant.ToBytes();
  return std::equal(first.begin(), first.end(), key.bytes.begin());
}

StoredBlock::~StoredBlock() { books_.Forget(*this); }

std::shared_ptr<const StoredBlock> StoredBooks::Name(const TierKey& key, uint64_t bytes) {
  std::weak_ptr<const StoredBlock>& slot = blocks_[key];
  if (std::shared_ptr<const StoredBlock> known = slot.lock()) return known;
  auto block = std::make_shared<const StoredBlock>(*this, key, bytes);
  slot = block;
  bytes_ += bytes;
  return block;
}

void StoredBooks::Forget(const StoredBlock& block) {
  blocks_.erase(block.key());
  bytes_ -= block.bytes();
  forgotten_.push_back(block.key());
}

std::vector<TierKey> StoredBooks::TakeForgotten(size_t max) {
  std::vector<TierKey> keys;
  while (!forgotten_.empty() && keys.size() < max) {
    // Written and named again meanwhile: it stays.
    if (!blocks_.contains(forgotten_.back())) keys.push_back(forgotten_.back());
    forgotten_.pop_back();
  }
  return keys;
}

uint64_t StoredRows::bytes() const {
  uint64_t bytes = 0;
  for (const std::vector<StoredRun>& lane : lanes) {
    for (const StoredRun& run : lane) bytes += run.block->bytes();
  }
  return bytes;
}

std::shared_ptr<const StoredRows> StoredRows::First(uint64_t rows) const {
  auto first = std::make_shared<StoredRows>();
  first->manifest = manifest;
  for (const std::vector<StoredRun>& lane : lanes) {
    std::vector<StoredRun>& out = first->lanes.emplace_back();
    uint64_t left = rows;
    for (const StoredRun& run : lane) {
      if (left == 0) break;
      out.push_back(run);
      out.back().rows = static_cast<uint32_t>(std::min<uint64_t>(run.rows, left));
      left -= out.back().rows;
    }
  }
  return first;
}

}  // namespace kvasir::core
