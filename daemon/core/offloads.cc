#include "daemon/core/offloads.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/snapshot_groups.h"
#include "daemon/core/tenant_device.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {
namespace {

constexpr std::chrono::seconds kRestAfterFailure{5};

TenantDevice* DeviceOf(Tenant& tenant, const DeviceMemory* memory) {
  const auto found =
      std::find_if(tenant.devices.begin(), tenant.devices.end(),
                   [&](const auto& device) { return &device->account.memory() == memory; });
  return found == tenant.devices.end() ? nullptr : found->get();
}

// What the snapshot can be gone on from at is there, or more.
bool Has(const PrefixCache& cache, const Snapshot& snapshot) {
  return IsWhole(snapshot) ? cache.Has(*snapshot.chain, snapshot.form) : cache.HasOf(snapshot);
}

// Makes the groups of a job.
class Mover {
 public:
  Mover(Tenant& tenant, TenantDevice& device, OffloadJob& job)
      : tenant_(tenant), device_(device), job_(job) {}

  absl::Status AddKept(const std::shared_ptr<KeptGroup>& group) {
    if (replaced_.contains(group.get())) return absl::OkStatus();
    std::shared_ptr<KeptGroup> twin = group->twin.lock();
    if (twin == nullptr || !IsThere(twin->allocator())) {
      const shm::GroupGeometry& geometry = group->geometry();
      GroupAllocator& allocator =
          up() ? device_.kept.For(geometry) : tenant_.kept.For(geometry.bytes);
      KVASIR_ASSIGN_OR_RETURN(const Group made, allocator.Allocate());
      twin = std::make_shared<KeptGroup>(made, geometry, allocator);
      twin->slots = group->slots;
      AddPiece(group->group(), made, geometry, twin);
      job_.twins.emplace_back(group, twin);
    }
    replaced_[group.get()] = std::move(twin);
    return absl::OkStatus();
  }

  absl::Status AddRecent(const Snapshot::Lane& lane) {
    if (lane.recent == nullptr) {
      recent_.push_back(nullptr);
      return absl::OkStatus();
    }
    const shm::GroupGeometry& geometry = lane.kept_shapes->recent;
    GroupAllocator& allocator =
        up() ? device_.outside.For(geometry) : tenant_.outside.For(geometry.bytes);
    auto blocks = std::make_shared<BlockList>(allocator);
    for (const Group& group : lane.recent_groups()) {
      KVASIR_RETURN_IF_ERROR(blocks->Add());
      AddPiece(group, blocks->groups().back(), geometry, nullptr);
    }
    recent_.push_back(std::move(blocks));
    return absl::OkStatus();
  }

  std::shared_ptr<const Snapshot> MakeCopy(DeviceMemory* to) {
    return job_.from->MovedTo(to, replaced_, std::move(recent_));
  }

 private:
  bool up() const { return job_.direction == device::CopyDirection::kToDevice; }
  bool IsThere(const GroupAllocator& allocator) const {
    return up() ? device_.Owns(&allocator) : tenant_.kept.Owns(&allocator);
  }
  void AddPiece(const Group& from, const Group& to, const shm::GroupGeometry& geometry,
                std::shared_ptr<KeptGroup> filled) {
    job_.bytes += PlaneBytes(geometry);
    job_.pieces.push_back({up() ? from : to, up() ? to : from, &geometry, std::move(filled)});
  }

  Tenant& tenant_;
  TenantDevice& device_;
  OffloadJob& job_;
  std::map<const KeptGroup*, std::shared_ptr<KeptGroup>> replaced_;
  std::vector<std::shared_ptr<const BlockList>> recent_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadJob>> Offloads::MakeJob(Tenant& tenant, TenantDevice& device,
                                                              std::shared_ptr<const Snapshot> from,
                                                              DeviceMemory* to) {
  auto job = std::make_unique<OffloadJob>();
  job->direction =
      to == nullptr ? device::CopyDirection::kToHost : device::CopyDirection::kToDevice;
  job->tenant = &tenant;
  job->device = &device;
  job->from = std::move(from);
  Mover mover(tenant, device, *job);
  for (const SnapshotGroup& group : KeptGroupsOf(*job->from)) {
    KVASIR_RETURN_IF_ERROR(mover.AddKept(group.kept));
  }
  for (const Snapshot::Lane& lane : job->from->lanes) {
    KVASIR_RETURN_IF_ERROR(mover.AddRecent(lane));
  }
  job->to = mover.MakeCopy(to);
  return job;
}

uint64_t Offloads::Begin(std::unique_ptr<OffloadJob> job) {
  job->id = next_id_++;
  Out& out = out_[job->id];
  out.tenant = job->tenant;
  out.to = job->to->device;
  out.entry = job->entry;
  out.rows = job->from->rows;
  out.saved = job->saved;
  out.prefix_drops = job->tenant->prefix_drops;
  out.from = job->from;
  out.copy = job->to;
  queue_.push_back(std::move(job));
  return queue_.back()->id;
}

absl::StatusOr<uint64_t> Offloads::Bring(Tenant& tenant, std::shared_ptr<const Snapshot> from,
                                         uint64_t entry, const std::optional<SnapshotId>& saved,
                                         DeviceMemory* to, bool is_awaited) {
  if (from->device != nullptr && to != nullptr) {
    return FailedPrecondition("rows do not move from device to device: from={} to={}",
                              from->device->name(), to->name());
  }
  for (auto& [id, out] : out_) {
    if (out.tenant == &tenant && out.to == to && out.from->device == from->device &&
        out.saved == saved && (saved || (out.entry == entry && out.rows >= from->rows))) {
      if (is_awaited) ++out.waiters;
      return id;
    }
  }
  TenantDevice* const device = DeviceOf(tenant, to != nullptr ? to : from->device);
  if (device == nullptr) return Internal("a tenant has no account of a device");
  // What is only cached makes room for it. What an engine has saved by name does so where another
  // saved sequence is wanted, and not for what is only cached or goes down by itself.
  tenant.keeps_saved = !saved || !is_awaited;
  absl::StatusOr<std::unique_ptr<OffloadJob>> job = MakeJob(tenant, *device, std::move(from), to);
  tenant.keeps_saved = false;
  if (!job.ok()) {
    ++device->offloads.failures;
    return job.status();
  }
  (*job)->entry = entry;
  (*job)->saved = saved;
  const uint64_t id = Begin(*std::move(job));
  out_[id].waiters = is_awaited ? 1 : 0;
  return id;
}

absl::StatusOr<uint64_t> Offloads::BringPrefix(Tenant& tenant, std::shared_ptr<const Snapshot> from,
                                               uint64_t entry, DeviceMemory* to, bool is_awaited) {
  return Bring(tenant, std::move(from), entry, std::nullopt, to, is_awaited);
}

absl::StatusOr<uint64_t> Offloads::BringSaved(Tenant& tenant, const SnapshotId& id,
                                              std::shared_ptr<const Snapshot> from,
                                              DeviceMemory* to) {
  return Bring(tenant, std::move(from), 0, id, to, /*is_awaited=*/true);
}

bool Offloads::UpdatePressed(TenantDevice& device) const {
  const uint64_t limit = device.account.budget().limit_bytes;
  device.pressed = options_.IsPressed(device.used_bytes(), limit, device.pressed);
  if (!device.pressed) device.went_down.clear();
  return device.pressed;
}

bool Offloads::BeginDown(Tenant& tenant, TenantDevice& device, std::shared_ptr<const Snapshot> from,
                         uint64_t entry, const std::optional<SnapshotId>& saved) {
  const absl::StatusOr<uint64_t> begun =
      Bring(tenant, std::move(from), entry, saved, nullptr, /*is_awaited=*/false);
  if (!begun.ok()) device.rest_until = now_ + kRestAfterFailure;
  return begun.ok();
}

bool Offloads::AskDown(Tenant& tenant, TenantDevice& device) {
  if (!UpdatePressed(device) || now_ < device.rest_until) return false;
  const DeviceMemory* const memory = &device.account.memory();
  for (const bool used : {true, false}) {  // what was used again first
    for (const auto& [id, entry] : device.prefixes.entries()) {
      if ((entry.hits > 0) != used || device.went_down.contains(id)) continue;
      device.went_down.insert(id);
      if (Has(tenant.prefixes, *entry.snapshot)) continue;
      return BeginDown(tenant, device, entry.snapshot, id, std::nullopt);
    }
  }
  for (const auto& [id, entry] : tenant.snapshots.entries()) {
    const std::shared_ptr<const Snapshot>& snapshot = entry.snapshot;
    const bool is_awaited = std::any_of(arrived_.begin(), arrived_.end(), [&](const auto& one) {
      return one.second.snapshot == snapshot;
    });
    if (snapshot->device != memory || is_awaited) continue;
    return BeginDown(tenant, device, snapshot, 0, id);
  }
  return false;
}

// Where everything has a copy: what is worth least goes before somebody waits for its memory.
void Offloads::DropBelowLowWatermark(Tenant& tenant, TenantDevice& device) const {
  const auto has_copy = [&](const auto& entry) {
    return Has(tenant.prefixes, *entry.second.snapshot);
  };
  while (
      UpdatePressed(device) && now_ >= device.rest_until &&
      std::all_of(device.prefixes.entries().begin(), device.prefixes.entries().end(), has_copy)) {
    const uint64_t before = device.held_bytes();
    if (!device.prefixes.MakeRoom() || device.held_bytes() >= before) return;
    (void)device.ReturnIdle();
  }
}

std::unique_ptr<OffloadJob> Offloads::Pop(const DeviceMemory& device,
                                          device::CopyDirection direction) {
  const auto first = std::find_if(queue_.begin(), queue_.end(), [&](const auto& job) {
    return job->direction == direction && &job->device->account.memory() == &device;
  });
  if (first == queue_.end()) return nullptr;
  std::unique_ptr<OffloadJob> job = std::move(*first);
  queue_.erase(first);
  return job;
}

std::unique_ptr<OffloadJob> Offloads::Take(const DeviceMemory& memory,
                                           device::CopyDirection direction,
                                           std::span<const std::unique_ptr<Tenant>> tenants) {
  std::erase_if(arrived_, [this](const auto& one) { return now_ >= one.second.until; });
  std::unique_ptr<OffloadJob> asked = Pop(memory, direction);
  if (asked != nullptr || direction == device::CopyDirection::kToDevice) return asked;
  for (size_t i = 0; i < tenants.size(); ++i) {
    Tenant& tenant = *tenants[turn_++ % tenants.size()];
    TenantDevice* const device = DeviceOf(tenant, &memory);
    if (device != nullptr && AskDown(tenant, *device)) return Pop(memory, direction);
  }
  for (const std::unique_ptr<Tenant>& tenant : tenants) {
    if (TenantDevice* const device = DeviceOf(*tenant, &memory))
      DropBelowLowWatermark(*tenant, *device);
  }
  return nullptr;
}

void Offloads::Finish(std::unique_ptr<OffloadJob> job) {
  Tenant& tenant = *job->tenant;
  const uint32_t waiters = out_.at(job->id).waiters;
  const bool dropped = !job->saved && out_.at(job->id).prefix_drops != tenant.prefix_drops;
  out_.erase(job->id);
  OffloadCounters& counters = job->device->offloads;
  if (!job->status.ok()) {
    ++counters.failures;
    job->device->rest_until = now_ + kRestAfterFailure;
    return;
  }
  if (dropped) return;  // by an administrator, meanwhile
  const bool up = job->direction == device::CopyDirection::kToDevice;
  for (const auto& [from, to] : job->twins) {
    from->twin = to;
    to->twin = from;
  }
  if (job->saved) {
    // Dropped meanwhile: then it stays so.
    if (!tenant.snapshots.Rehome(*job->saved, job->from.get(), job->to)) return;
  } else {
    PrefixUse use;
    PrefixCache& cache = tenant.PrefixesIn(job->to->device);
    if (!cache.Add(job->to, use).ok()) {
      ++counters.failures;
      return;
    }
    if (waiters > 0) arrived_[job->id].pin = cache.Pin(*job->to);
  }
  if (waiters > 0) {
    Arrived& arrived = arrived_[job->id];
    arrived.snapshot = job->to;
    arrived.until = now_ + kKeptFor;
    arrived.waiters = waiters;
  }
  ++(up ? counters.loads : counters.stores);
  (up ? counters.loaded_bytes : counters.stored_bytes) += job->bytes;
}

void Offloads::Settle(uint64_t id) {
  if (const auto out = out_.find(id); out != out_.end() && out->second.waiters > 0) {
    --out->second.waiters;
  }
  const auto arrived = arrived_.find(id);
  if (arrived != arrived_.end() && --arrived->second.waiters == 0) arrived_.erase(arrived);
}

void Offloads::ForEachSnapshot(const std::function<void(const Snapshot&)>& visit) const {
  for (const auto& [id, out] : out_) {
    visit(*out.from);
    visit(*out.copy);
  }
  for (const auto& [id, arrived] : arrived_) visit(*arrived.snapshot);
}

void Offloads::Clear() {
  queue_.clear();
  out_.clear();
  arrived_.clear();
}

}  // namespace kvasir::core
