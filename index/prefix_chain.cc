#include "index/prefix_chain.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

void AppendNumber(uint32_t number, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(number >> shift));
}

}  // namespace

absl::StatusOr<PrefixChain> PrefixChain::Create(const ChainHasher::Secret& secret,
                                                const ChainKey& scope,
                                                std::vector<TokenExtra> extras) {
  if (extras.size() > kExtrasMax) {
    return InvalidArgument("too many extras: count={} max={}", extras.size(), kExtrasMax);
  }
  for (size_t i = 0; i < extras.size(); ++i) {
    if (extras[i].bytes.empty() || extras[i].bytes.size() > kExtraBytesMax) {
      return InvalidArgument("extras[{}].bytes is out of bounds: bytes={} min=1 max={}", i,
                             extras[i].bytes.size(), kExtraBytesMax);
    }
    if (i > 0 && extras[i].row <= extras[i - 1].row) {
      return InvalidArgument("extras[{}].row is not above the row before: row={} before={}", i,
                             extras[i].row, extras[i - 1].row);
    }
  }
  return PrefixChain(secret, scope,
                     std::make_shared<const std::vector<TokenExtra>>(std::move(extras)));
}

absl::StatusOr<PrefixChain> PrefixChain::Restore(const ChainHasher::Secret& secret,
                                                 const ChainKey& scope,
                                                 std::vector<TokenExtra> extras,
                                                 std::vector<ChainKey> keys,
                                                 std::vector<uint32_t> rest) {
  if (rest.size() >= kChunkTokens) {
    return InvalidArgument("a chain has too many tokens behind its chunks: tokens={} max={}",
                           rest.size(), kChunkTokens - 1);
  }
  KVASIR_ASSIGN_OR_RETURN(PrefixChain chain, Create(secret, scope, std::move(extras)));
  chain.keys_ = std::move(keys);
  chain.rest_ = std::move(rest);
  return chain;
}

std::span<const TokenExtra> PrefixChain::ExtrasOf(uint64_t first, uint64_t last) const {
  const auto at = [this](uint64_t row) {
    return std::lower_bound(extras_->begin(), extras_->end(), row,
                            [](const TokenExtra& extra, uint64_t r) { return extra.row < r; });
  };
  return {at(first), at(last)};
}

void PrefixChain::AddChunk(std::span<const uint32_t> tokens) {
  const uint64_t first = keys_.size() * kChunkTokens;
  extra_.clear();
  if (!extras_->empty()) {
    for (const TokenExtra& extra : ExtrasOf(first, first + kChunkTokens)) {
      AppendNumber(static_cast<uint32_t>(extra.row - first), &extra_);
      AppendNumber(static_cast<uint32_t>(extra.bytes.size()), &extra_);
      extra_ += extra.bytes;
    }
  }
  static_assert(kChunkTokens * (8 + kExtraBytesMax) <= kChunkExtraBytesMax);
  const absl::StatusOr<ChainKey> key =
      hasher_.Hash(keys_.empty() ? ChainKey() : keys_.back(), tokens,
                   {reinterpret_cast<const uint8_t*>(extra_.data()), extra_.size()});
  KVASIR_CHECK(key.ok(), "a chunk within its bounds has no key: tokens={}", tokens.size());
  keys_.push_back(*key);
}

void PrefixChain::Append(std::span<const uint32_t> tokens) {
  if (!rest_.empty()) {
    const size_t taken = std::min<size_t>(kChunkTokens - rest_.size(), tokens.size());
    rest_.insert(rest_.end(), tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(taken));
    tokens = tokens.subspan(taken);
    if (rest_.size() < kChunkTokens) return;
    AddChunk(rest_);
    rest_.clear();
  }
  keys_.reserve(keys_.size() + tokens.size() / kChunkTokens);
  for (; tokens.size() >= kChunkTokens; tokens = tokens.subspan(kChunkTokens)) {
    AddChunk(tokens.first(kChunkTokens));
  }
  rest_.assign(tokens.begin(), tokens.end());
}

void PrefixChain::Truncate(uint64_t rows, std::span<const uint32_t> rest) {
  KVASIR_CHECK(rows <= this->rows() && rest.size() == rows % kChunkTokens,
               "a prefix is cut where it is not: rows={} max={}", rows, this->rows());
  keys_.resize(rows / kChunkTokens);
  rest_.assign(rest.begin(), rest.end());
}

}  // namespace kvasir
