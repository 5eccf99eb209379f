// RendezvousTier: shares keys out over several tiers by rendezvous hashing: each key goes to the
// tier whose name and the key hash highest. A tier more or less moves only its own share.
//
// Thread-safe as its tiers are. Weights are equal. A batch goes to one tier after the other, each
// with its share. A tier that is gone costs its share: its blocks are misses, never another's.
#ifndef KVASIR_ALLOCATOR_TIER_RENDEZVOUS_TIER_H_
#define KVASIR_ALLOCATOR_TIER_RENDEZVOUS_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/tier.h"

namespace kvasir {

struct NamedTier {
  std::string name;  // the same on every host, whatever the order: RemoteServer::Name()
  std::unique_ptr<Tier> tier;
};

class RendezvousTier final : public Tier {
 public:
  static constexpr size_t kTiersMax = 256;

  // Errors: kInvalidArgument (none, too many, a name twice).
  static absl::StatusOr<std::unique_ptr<RendezvousTier>> Create(std::vector<NamedTier> tiers);

  void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
             const CancelToken* cancel = nullptr) override;
  void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
            const CancelToken* cancel = nullptr) override;
  // All tiers are tried; the first error is returned.
  absl::Status Erase(std::span<const TierKey> keys) override;
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) override;
  absl::Status Flush() override;
  // The sums; what one tier does not know is not known.
  TierStats Stats() const override;

  // Index of the tier that has `key`. Cost: a hash a tier.
  size_t TierOf(const TierKey& key) const;

 private:
  struct Member {
    uint64_t seed = 0;
    std::unique_ptr<Tier> tier;
  };
  explicit RendezvousTier(std::vector<Member> members) : members_(std::move(members)) {}

  // For each tier, the indices of its items.
  template <typename Item>
  std::vector<std::vector<size_t>> Shares(std::span<const Item> items) const;

  std::vector<Member> members_;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_RENDEZVOUS_TIER_H_
