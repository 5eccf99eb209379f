#include "tests/tier/tier_places.h"

#include <system_error>

#include <filesystem>

#include <gtest/gtest.h>

#include "allocator/tier/guarded_tier.h"
#include "allocator/tier/host_tier.h"
#include "allocator/tier/remote_tier.h"
#include "allocator/tier/rendezvous_tier.h"
#include "base/error.h"
#include "tests/tier/tier_blocks.h"

#include <stdlib.h>

namespace kvasir::testing {
namespace {

TierPlace MakeHost(uint64_t capacity_bytes) {
  TierPlace place;
  auto tier = HostTier::Create({.capacity_bytes = capacity_bytes,
                                .fingerprint = kFingerprint,
                                .chunk_bytes = 2 * kMiB,
                                .unit_bytes = 4 * kKiB});
  EXPECT_TRUE(tier.ok()) << tier.status();
  place.tier = *std::move(tier);
  return place;
}

TierPlace MakeDisk(uint64_t capacity_bytes, std::unique_ptr<BlockIo> io) {
  TierPlace place;
  place.folder = std::make_unique<TempFolder>();
  auto tier =
      DiskTier::Open(SmallDisk(place.folder->path() + "/tier", capacity_bytes), std::move(io));
  EXPECT_TRUE(tier.ok()) << tier.status();
  place.tier = *std::move(tier);
  return place;
}

TierPlace MakeRemote(uint64_t capacity_bytes, size_t servers) {
  TierPlace place;
  std::vector<NamedTier> tiers;
  for (size_t i = 0; i < servers; ++i) {
    auto server = bench::RedisServer::Start({.maxmemory_bytes = capacity_bytes / servers});
    EXPECT_TRUE(server.ok()) << server.status();
    RemoteTierOptions options;
    options.server.unix_path = (*server)->socket();
    options.fingerprint = kFingerprint;
    auto tier = RemoteTier::Create(options);
    EXPECT_TRUE(tier.ok()) << tier.status();
    tiers.push_back({options.server.Name(), *std::move(tier)});
    place.servers.push_back(*std::move(server));
  }
  if (servers == 1) {
    place.tier = std::move(tiers[0].tier);
  } else {
    auto tier = RendezvousTier::Create(std::move(tiers));
    EXPECT_TRUE(tier.ok()) << tier.status();
    place.tier = *std::move(tier);
  }
  return place;
}

}  // namespace

TempFolder::TempFolder()
    : path_((std::filesystem::temp_directory_path() / "kvasir-tier-XXXXXX").string()) {
  EXPECT_NE(::mkdtemp(path_.data()), nullptr);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

DiskTierOptions SmallDisk(const std::string& path, uint64_t capacity_bytes) {
  return {.path = path,
          .capacity_bytes = capacity_bytes,
          .fingerprint = kFingerprint,
          .segment_bytes = 4 * kMiB,
          .unit_bytes = 4 * kKiB};
}

std::vector<TierMaker> AllTiers() {
  std::vector<TierMaker> makers = {
      {"Host", MakeHost},
      {"Disk", [](uint64_t bytes) { return MakeDisk(bytes, MakeSystemIo()); }},
      {"DiskWithoutUring", [](uint64_t bytes) { return MakeDisk(bytes, MakePlainIo()); }},
      {"Remote", [](uint64_t bytes) { return MakeRemote(bytes, 1); }},
      {"RemoteOfThree", [](uint64_t bytes) { return MakeRemote(bytes, 3); }},
  };
  for (size_t i = 0, count = makers.size(); i < count; ++i) {
    makers.push_back({makers[i].name + "Guarded", [make = makers[i].make](uint64_t bytes) {
                        TierPlace place = make(bytes);
                        place.tier = std::make_unique<GuardedTier>(std::move(place.tier),
                                                                   GuardOptions{}, SystemClock());
                        return place;
                      }});
  }
  return makers;
}

}  // namespace kvasir::testing
