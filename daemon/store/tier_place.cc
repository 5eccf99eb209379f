#include "daemon/store/tier_place.h"

#include <errno.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "allocator/tier/disk_tier.h"
#include "allocator/tier/remote_tier.h"
#include "allocator/tier/rendezvous_tier.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/small_file.h"
#include "base/status_macros.h"
#include "daemon/server_addresses.h"
#include "proto/shm/layout_hash.h"

namespace kvasir {
namespace {

// What the bytes of a value mean: other numbers are other layouts.
constexpr uint64_t kValueFormat = 1;
constexpr uint64_t kPasswordBytesMax = 4096;

uint64_t Fingerprint() { return shm::LayoutHash() + kValueFormat; }

absl::StatusOr<TierPlace> OpenDisk(const Config::Tier& config) {
  DiskTierOptions options;
  if (::mkdir(config.disk_path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "mkdir " + config.disk_path);
  }
  options.path = config.disk_path + "/blocks";
  options.fingerprint = Fingerprint();
  // Few enough files for a large disk, and a small one is not of a single piece.
  options.segment_bytes = config.disk_bytes >= 64 * kGiB ? kGiB : 64 * kMiB;
  options.capacity_bytes = RoundDown(config.disk_bytes, options.segment_bytes);
  absl::StatusOr<std::unique_ptr<DiskTier>> disk = DiskTier::Open(options, MakeSystemIo());
  if (disk.status().code() == absl::StatusCode::kResourceExhausted) {
    return ResourceExhausted("tier.disk_bytes cannot be had: tier.disk_bytes={}: {}",
                             config.disk_bytes, MessageOf(disk.status()));
  }
  KVASIR_RETURN_IF_ERROR(disk.status());
  auto guarded = std::make_unique<GuardedTier>(*std::move(disk), GuardOptions(), SystemClock());
  TierPlace place;
  place.config.name = "disk";
  place.config.capacity_bytes = options.capacity_bytes;
  place.guards.push_back(guarded.get());
  place.tier = std::move(guarded);
  return place;
}

absl::StatusOr<TierPlace> OpenRemote(const Config::Tier& config) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<ServerAddress> servers,
                          ParseServerAddresses(config.redis_servers));
  std::string password;
  if (!config.redis_password_file.empty()) {
    KVASIR_ASSIGN_OR_RETURN(password, ReadSmallFile(config.redis_password_file, kPasswordBytesMax));
    password.resize(password.find_last_not_of("\r\n") + 1);  // as editors leave it
  }
  TierPlace place;
  place.config.name = "remote";
  place.config.shared = true;
  std::vector<NamedTier> tiers;
  for (const ServerAddress& server : servers) {
    RemoteTierOptions options;
    options.server = {server.unix_path, server.host, server.port, password};
    options.fingerprint = Fingerprint();
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<RemoteTier> remote, RemoteTier::Create(options));
    auto guarded = std::make_unique<GuardedTier>(std::move(remote), GuardOptions(), SystemClock());
    place.guards.push_back(guarded.get());
    tiers.push_back({options.server.Name(), std::move(guarded)});
  }
  KVASIR_ASSIGN_OR_RETURN(place.tier, RendezvousTier::Create(std::move(tiers)));
  return place;
}

}  // namespace

bool TierPlace::IsLeftOut() const {
  return std::all_of(guards.begin(), guards.end(),
                     [](const GuardedTier* guard) { return guard->IsOpen(); });
}

absl::StatusOr<std::vector<TierPlace>> OpenTiers(const Config::Tier& config) {
  std::vector<TierPlace> places;
  if (!config.disk_path.empty()) {
    KVASIR_ASSIGN_OR_RETURN(TierPlace place, OpenDisk(config));
    places.push_back(std::move(place));
  }
  if (!config.redis_servers.empty()) {
    KVASIR_ASSIGN_OR_RETURN(TierPlace place, OpenRemote(config));
    places.push_back(std::move(place));
  }
  return places;
}

absl::StatusOr<std::optional<ChainHasher::Secret>> PrefixSecretOfFile(const Config::Tier& config) {
  std::string path = config.key_file;
  if (path.empty() && !config.disk_path.empty()) path = config.disk_path + "/prefix.key";
  if (path.empty()) return std::nullopt;
  ChainHasher::Secret secret{};
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno != ENOENT) return ErrnoStatus(errno, "stat " + path);
    KVASIR_RETURN_IF_ERROR(FillRandom(secret.data(), secret.size()));
    KVASIR_RETURN_IF_ERROR(
        ReplaceFile(path, {reinterpret_cast<const char*>(secret.data()), secret.size()}, 0600));
    return secret;
  }
  if ((found.st_mode & 077) != 0) {
    return PermissionDenied(
        "the key of prefixes may be read by others: file={} mode={:o} bound=600", path,
        found.st_mode & 0777);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::string bytes, ReadSmallFile(path, secret.size()));
  if (bytes.size() != secret.size()) {
    return InvalidArgument("the key of prefixes has another length: file={} bytes={} expected={}",
                           path, bytes.size(), secret.size());
  }
  std::copy(bytes.begin(), bytes.end(), secret.begin());
  return secret;
}

}  // namespace kvasir
