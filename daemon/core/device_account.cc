#include "daemon/core/device_account.h"

#include <algorithm>
#include <chrono>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "policies/fairness/fair_shares.h"

namespace kvasir::core {
namespace {

constexpr std::chrono::milliseconds kOwnRetry{1000};

}  // namespace

std::vector<uint64_t> DeviceShares::OwnParts() const {
  std::vector<fairness::Claim> claims;
  for (const Entry& entry : entries_) {
    const DeviceBudget& budget = entry.account->budget();
    claims.push_back(
        {budget.reserved_bytes, budget.limit_bytes, budget.weight, budget.limit_bytes});
  }
  return fairness::FairShares(pool_bytes_, claims);
}

uint64_t DeviceShares::OwnBytes(const DeviceAccount& account) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.account == &account; });
  KVASIR_CHECK(found != entries_.end(), "an account that was not added: {}", account.tenant());
  return OwnParts()[static_cast<size_t>(found - entries_.begin())];
}

void DeviceShares::Refused(const DeviceAccount& account) {
  for (Entry& entry : entries_) {
    if (entry.account == &account) entry.wants_until = now_ + kClaimTime;
  }
}

absl::Status DeviceShares::Admit(const DeviceAccount& account, uint64_t bytes) {
  const std::vector<uint64_t> own = OwnParts();
  uint64_t charged = 0, kept_free = 0, own_bytes = 0;
  const DeviceAccount* short_of_own = nullptr;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const DeviceAccount& one = *entries_[i].account;
    charged += one.charged_bytes();
    if (&one == &account) {
      own_bytes = own[i];
      continue;
    }
    kept_free +=
        one.budget().reserved_bytes - std::min(one.budget().reserved_bytes, one.charged_bytes());
    if (now_ < entries_[i].wants_until && one.charged_bytes() < own[i]) short_of_own = &one;
  }
  const DeviceMemory& memory = account.memory();
  const uint64_t wanted = account.charged_bytes() + bytes;
  if (wanted > own_bytes && short_of_own != nullptr) {
    return WithShortage(
        ResourceExhausted("other tenants want their parts of the device: device={} tenant={} "
                          "wanted_bytes={} charged_bytes={} own_bytes={}",
                          memory.name(), account.tenant(), bytes, account.charged_bytes(),
                          own_bytes),
        {"tenant.gpu.weight", wanted - own_bytes, "other tenants", Lender::kRetry});
  }
  // Bytes of its own reservation are kept free for it.
  const uint64_t reserved_left = account.budget().reserved_bytes -
                                 std::min(account.budget().reserved_bytes, account.charged_bytes());
  const uint64_t beyond = bytes - std::min(bytes, reserved_left);
  const uint64_t idle = pool_bytes_ - std::min(pool_bytes_, charged);
  const uint64_t free = idle - std::min(idle, kept_free + reserved_left);
  if (beyond <= free) return absl::OkStatus();
  Refused(account);
  return WithShortage(
      ResourceExhausted("what is left of the device is others' reservation: device={} tenant={} "
                        "wanted_bytes={} charged_bytes={} idle_bytes={} reserved_bytes={}",
                        memory.name(), account.tenant(), bytes, account.charged_bytes(), idle,
                        kept_free),
      {"gpu.pool_bytes", beyond - free, "other tenants", Lender::kRetry});
}

bool DeviceShares::MakeRoomFor(const DeviceAccount& account) {
  if (account.charged_bytes() >= OwnBytes(account)) return false;
  const std::vector<uint64_t> own = OwnParts();
  std::vector<std::pair<uint64_t, DeviceAccount*>> above;
  for (size_t i = 0; i < entries_.size(); ++i) {
    DeviceAccount& one = *entries_[i].account;
    if (&one != &account && one.charged_bytes() > own[i]) {
      above.emplace_back(one.charged_bytes() - own[i], &one);
    }
  }
  std::stable_sort(above.begin(), above.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  return std::any_of(above.begin(), above.end(),
                     [](const auto& one) { return one.second->GiveUpForOthers(); });
}

DeviceAccount::~DeviceAccount() {
  for (std::unique_ptr<Extent>& pair : quarantine_) Destroy(std::move(pair));
}

absl::StatusOr<std::unique_ptr<device::DeviceExtent>> DeviceAccount::TakeRows(uint64_t bytes,
                                                                              uint64_t charge) {
  KVASIR_RETURN_IF_ERROR(shares_.Admit(*this, charge));
  absl::StatusOr<std::unique_ptr<device::DeviceExtent>> rows = memory_.pool().Take(bytes, owner_);
  if (rows.status().code() == absl::StatusCode::kResourceExhausted) shares_.Refused(*this);
  return rows;
}

absl::StatusOr<std::unique_ptr<Extent>> DeviceAccount::TakePair(uint64_t groups,
                                                                uint64_t group_bytes,
                                                                uint64_t trailer_bytes,
                                                                ExtentUse use) {
  const uint64_t bytes = groups * group_bytes;
  const uint64_t charge = RoundUp(bytes, memory_.facts().granularity_bytes);
  host_is_short_ = pool_is_short_ = false;
  if (charge > budget_.limit_bytes - std::min(budget_.limit_bytes, charged_bytes_)) {
    return WithShortage(
        ResourceExhausted("tenant is over its limit of the device: device={} tenant={} "
                          "wanted_bytes={} charged_bytes={} limit_bytes={}",
                          memory_.name(), tenant(), charge, charged_bytes_, budget_.limit_bytes),
        {"tenant.gpu.limit_bytes", charged_bytes_ + charge - budget_.limit_bytes, "own sequences",
         kOwnRetry});
  }
  // Its own account first: where that does not give anything, no other tenant's is looked at.
  absl::StatusOr<std::unique_ptr<Extent>> pair = host_.TakeOwnExtent(groups * trailer_bytes, use);
  host_is_short_ = !pair.ok();
  if (!pair.ok()) return pair.status();
  absl::StatusOr<std::unique_ptr<device::DeviceExtent>> rows = TakeRows(bytes, charge);
  if (!rows.ok()) {
    pool_is_short_ = rows.status().code() == absl::StatusCode::kResourceExhausted;
    host_.ReturnExtent(*std::move(pair));
    (void)host_.Settle();
    return rows.status();
  }
  charged_bytes_ += charge;
  waste_bytes_ += charge - bytes;
  trailer_bytes_ += (*pair)->bytes();
  (*pair)->AttachRows({*std::move(rows), &memory_, group_bytes, trailer_bytes});
  return pair;
}

bool DeviceAccount::MakeRoom(const std::function<bool()>& got_groups) {
  if (return_idle_ != nullptr && return_idle_()) return true;
  if (host_is_short_ && host_.MakeRoom()) return true;
  if (pool_is_short_ && shares_.MakeRoomFor(*this)) return true;
  return GiveUpCached(got_groups);
}

bool DeviceAccount::GiveUpForOthers() {
  return (return_idle_ != nullptr && return_idle_()) || GiveUpCached(nullptr);
}

bool DeviceAccount::GiveUpCached(const std::function<bool()>& got_groups) {
  const uint64_t before = charged_bytes_;
  while (give_up_cached_ != nullptr && give_up_cached_(got_groups != nullptr)) {
    if (charged_bytes_ < before || (got_groups != nullptr && got_groups())) return true;
  }
  return false;
}

void DeviceAccount::Destroy(std::unique_ptr<Extent> pair) {
  DeviceRows rows = pair->DetachRows();
  charged_bytes_ -= rows.memory->charged_bytes();
  waste_bytes_ -= rows.memory->charged_bytes() - rows.memory->bytes();
  trailer_bytes_ -= pair->bytes();
  memory_.pool().Return(std::move(rows.memory));
  host_.ReturnExtent(std::move(pair));
}

bool DeviceAccount::Settle() {
  for (size_t i = 0; i < quarantine_.size();) {
    if (quarantine_[i]->Probe() == ProbeResult::kHeld) {
      ++i;
      continue;
    }
    Destroy(std::move(quarantine_[i]));
    quarantine_[i] = std::move(quarantine_.back());
    quarantine_.pop_back();
  }
  return !quarantine_.empty();
}

uint64_t DeviceAccount::quarantined_rows_bytes() const {
  uint64_t bytes = 0;
  for (const std::unique_ptr<Extent>& pair : quarantine_) bytes += pair->rows_bytes();
  return bytes;
}

GroupAllocator& DeviceAllocators::For(const shm::GroupGeometry& geometry) {
  const uint64_t rows = geometry.pos_off, trailer = geometry.bytes - geometry.pos_off;
  Shape& shape = by_shape_[{rows, trailer}];
  if (shape.allocator == nullptr) {
    const DeviceMemory::Options& options = account_.memory().options();
    shape.source = std::make_unique<Source>(account_, use_, rows, trailer);
    shape.allocator = std::make_unique<GroupAllocator>(
        GroupAllocator::Options{rows, use_, options.first_extent_bytes, options.extent_bytes},
        *shape.source);
    shape.source->set_allocator(shape.allocator.get());
  }
  return *shape.allocator;
}

bool DeviceAllocators::Source::MakeRoom() {
  if (use_ == ExtentUse::kRecent) return account_.MakeRoom(nullptr);  // none of them is cached
  const uint64_t held = allocator_->held_bytes();
  return account_.MakeRoom([&] { return allocator_->held_bytes() < held; });
}

uint64_t DeviceAllocators::held_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, shape] : by_shape_) bytes += shape.allocator->held_bytes();
  return bytes;
}

uint64_t DeviceAllocators::rows_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, shape] : by_shape_) bytes += shape.allocator->charged_bytes();
  return bytes;
}

void DeviceAllocators::ReturnIdleExtents() {
  for (const auto& [key, shape] : by_shape_) shape.allocator->ReturnIdleExtents();
}

bool DeviceAllocators::AnyUnmapped() const {
  return std::any_of(by_shape_.begin(), by_shape_.end(),
                     [](const auto& one) { return one.second.allocator->AnyUnmapped(); });
}

bool DeviceAllocators::Owns(const GroupAllocator* allocator) const {
  return std::any_of(by_shape_.begin(), by_shape_.end(),
                     [&](const auto& one) { return one.second.allocator.get() == allocator; });
}

}  // namespace kvasir::core
