// Makers of tiers for tests, each with what it needs: a folder, Redis servers.
#ifndef KVASIR_TESTS_TIER_TIER_PLACES_H_
#define KVASIR_TESTS_TIER_TIER_PLACES_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "allocator/tier/disk_tier.h"
#include "allocator/tier/tier.h"
#include "bench/redis_server.h"

namespace kvasir::testing {

// A folder that is removed with everything in it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A disk tier of 4 KiB units in segments of 4 MiB.
DiskTierOptions SmallDisk(const std::string& path, uint64_t capacity_bytes);

// A tier and what it stands on.
struct TierPlace {
  std::unique_ptr<TempFolder> folder;
  std::vector<std::unique_ptr<bench::RedisServer>> servers;
  std::unique_ptr<Tier> tier;
};

struct TierMaker {
  std::string name;
  std::function<TierPlace(uint64_t capacity_bytes)> make;
};

// Every tier that there is, plain and behind a guard. `capacity_bytes` is a multiple of 32 MiB.
std::vector<TierMaker> AllTiers();

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_TIER_PLACES_H_
