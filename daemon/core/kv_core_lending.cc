// Taking lent memory back: what is cached goes first, then engines are asked, then sequences end;
// what processes still hold some time later is taken from them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "policies/fairness/fair_shares.h"

namespace kvasir::core {
namespace {

// Of one hold of the core's lock.
constexpr int kRoomsAtOnce = 64;
constexpr int kSequencesAtOnce = 64;

constexpr uint64_t kLimitBytesMax = uint64_t{64} << 40;

// That a process has to let go of what it does not need any more, before it is taken from it: a
// step that began before the session ended may still read it.
constexpr std::chrono::milliseconds kLetGoTime{100};

// REQUIRES: as many pools as entries, which is the daemon's own doing.
absl::Status CheckDeviceBudgets(const std::string& tenant, const Budget& budget,
                                const std::vector<DeviceMemory*>& devices) {
  if (budget.devices.size() != devices.size()) {
    return InvalidArgument("one budget for each pool: tenant={} budgets={} pools={}", tenant,
                           budget.devices.size(), devices.size());
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    const DeviceBudget& one = budget.devices[i];
    const uint64_t pool_bytes = devices[i]->options().pool_bytes;
    if (one.limit_bytes > pool_bytes || one.reserved_bytes > one.limit_bytes) {
      return InvalidArgument(
          "out of bounds: tenant={} pool={} reserved_bytes={} limit_bytes={} pool_bytes={} "
          "bound=reserved_bytes <= limit_bytes <= pool_bytes",
          tenant, one.pool, one.reserved_bytes, one.limit_bytes, pool_bytes);
    }
    if (one.weight == 0 || one.weight > fairness::kWeightMax) {
      return InvalidArgument("weight out of bounds: tenant={} pool={} weight={} min=1 max={}",
                             tenant, one.pool, one.weight, fairness::kWeightMax);
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool KvCore::TakeBack() {
  const std::vector<Lending::Debt> debts = lending_.Debts();
  for (const auto& tenant : tenants_) {
    const auto debt = std::find_if(debts.begin(), debts.end(), [&](const Lending::Debt& one) {
      return one.account == &tenant->account;
    });
    if (debt != debts.end()) {
      TakeBackFrom(*tenant, debt->bytes);
    } else if (tenant->wanted_back > 0) {
      AskBack(*tenant, 0);
    }
  }
  return lending_.HasClaims();
}

absl::Status KvCore::SetBudgets(const std::map<std::string, Budget>& budgets) {
  const uint64_t pool_bytes = pool_.counts().pool_bytes;
  uint64_t disk_bytes = 0;  // of the smallest disk tier; 0: there is none whose size is known
  for (const TierConfig& tier : config_.tiers) {
    if (tier.capacity_bytes == 0) continue;
    disk_bytes = disk_bytes == 0 ? tier.capacity_bytes : std::min(disk_bytes, tier.capacity_bytes);
  }
  // Of at most 1,024 tenants with at most 2^46 bytes each.
  uint64_t reserved = 0, disk_reserved = 0;
  std::map<std::string, Budget> unknown = budgets;
  for (const auto& tenant : tenants_) {
    unknown.erase(tenant->config.name);
    const auto found = budgets.find(tenant->config.name);
    if (found == budgets.end()) {
      reserved += tenant->account.budget().reserved_bytes;
      disk_reserved += tenant->account.budget().disk_reserved_bytes;
      continue;
    }
    const Budget& budget = found->second;
    if (budget.limit_bytes < config_.first_extent_bytes || budget.limit_bytes > kLimitBytesMax) {
      return InvalidArgument("limit out of bounds: tenant={} limit_bytes={} min={} max={}",
                             found->first, budget.limit_bytes, config_.first_extent_bytes,
                             kLimitBytesMax);
    }
    if (budget.reserved_bytes > budget.limit_bytes) {
      return InvalidArgument("larger than the limit: tenant={} reserved_bytes={} limit_bytes={}",
                             found->first, budget.reserved_bytes, budget.limit_bytes);
    }
    if (budget.disk_reserved_bytes > budget.disk_bytes) {
      return InvalidArgument(
          "larger than the limit: tenant={} disk_reserved_bytes={} disk_bytes={}", found->first,
          budget.disk_reserved_bytes, budget.disk_bytes);
    }
    if (budget.weight == 0 || budget.weight > fairness::kWeightMax) {
      return InvalidArgument("weight out of bounds: tenant={} weight={} min=1 max={}", found->first,
                             budget.weight, fairness::kWeightMax);
    }
    KVASIR_RETURN_IF_ERROR(CheckDeviceBudgets(found->first, budget, config_.devices));
    reserved += budget.reserved_bytes;
    if (budget.disk_reserved_bytes > kLimitBytesMax) {
      return InvalidArgument("reservation out of bounds: tenant={} disk_reserved_bytes={} max={}",
                             found->first, budget.disk_reserved_bytes, kLimitBytesMax);
    }
    disk_reserved += budget.disk_reserved_bytes;
  }
  if (!unknown.empty()) return NotFound("unknown tenant: tenant={}", unknown.begin()->first);
  if (reserved > pool_bytes) {
    return InvalidArgument(
        "tenants reserve more than there is: reserved_bytes={} (of all) pool_bytes={}", reserved,
        pool_bytes);
  }
  if (disk_bytes > 0 && disk_reserved > disk_bytes) {
    return InvalidArgument(
        "tenants reserve more than there is: disk_reserved_bytes={} (of all) disk_bytes={}",
        disk_reserved, disk_bytes);
  }
  for (size_t device = 0; device < config_.devices.size(); ++device) {
    uint64_t of_device = 0;
    for (const auto& tenant : tenants_) {
      const auto found = budgets.find(tenant->config.name);
      of_device += found == budgets.end() ? tenant->devices[device]->account.budget().reserved_bytes
                                          : found->second.devices[device].reserved_bytes;
    }
    const DeviceMemory& memory = *config_.devices[device];
    if (of_device > memory.options().pool_bytes) {
      return InvalidArgument(
          "tenants reserve more than there is: pool={} reserved_bytes={} (of all) pool_bytes={}",
          memory.name(), of_device, memory.options().pool_bytes);
    }
  }
  for (const auto& tenant : tenants_) {
    const auto found = budgets.find(tenant->config.name);
    if (found == budgets.end()) continue;
    const Budget& budget = found->second;
    tenant->account.set_budget(budget);
    for (size_t device = 0; device < tenant->devices.size(); ++device) {
      tenant->devices[device]->account.set_budget(budget.devices[device]);
    }
    tenant->prefixes.set_entries_max(budget.counts.prefixes);
    for (const auto& device : tenant->devices) {
      device->prefixes.set_entries_max(budget.counts.prefixes);
    }
    for (size_t tier = 0; tier < config_.tiers.size(); ++tier) {
      if (config_.tiers[tier].adopted) continue;
      PrefixStore& store = *tenant->stores[tier];
      store.cache().set_entries_max(budget.counts.prefixes);
      store.set_limit_bytes(config_.tiers[tier].shared ? budget.remote_bytes : budget.disk_bytes);
    }
  }
  tier_hint_ = true;  // what is above a smaller limit is to be erased
  return absl::OkStatus();
}

void KvCore::TakeBackFrom(Tenant& tenant, uint64_t bytes) {
  const auto empty = [&] {
    (void)tenant.kept.ReturnEmptyExtents();
    (void)tenant.outside.ReturnEmptyExtents();
    for (const auto& [id, session] : sessions_) {
      if (&session->tenant == &tenant) (void)session->recent.ReturnEmptyExtents();
    }
    (void)tenant.account.Settle();
  };
  const uint64_t before = tenant.account.pool_bytes();
  empty();
  // Stamps what has just come, and takes what has been waited for.
  const uint64_t taken_before = tenant.account.taken_back_bytes();
  for (const uint64_t extent : tenant.account.TakeBack(now_, now_ - kLetGoTime)) {
    for (const auto& [id, session] : sessions_) session->extents.Forget(extent);
  }
  tenant.counters.bytes_taken_back += tenant.account.taken_back_bytes() - taken_before;

  const auto missing = [&] {
    const uint64_t there = before - tenant.account.pool_bytes() + tenant.account.coming_bytes();
    return bytes - std::min(bytes, there);
  };
  bool cached = true;
  for (int i = 0; missing() > 0 && cached && i < kRoomsAtOnce; ++i) {
    cached = tenant.GivesUpCached();
    empty();
  }
  if (missing() == 0) return AskBack(tenant, 0);
  if (cached) return;  // the next call goes on
  if (tenant.wanted_back == 0 && now_ >= tenant.owed_until) {
    tenant.take_back_at = now_ + std::chrono::milliseconds(config_.take_back_ms);
  }
  tenant.owed_until = now_ + Lending::kClaimTime;
  AskBack(tenant, missing());
  AskSuspensions(tenant, missing(), nullptr);
  if (now_ < tenant.take_back_at) return;
  const std::vector<uint64_t> order = SuspensionOrderOf(tenant, nullptr);
  auto next = order.begin();
  for (int i = 0; missing() > 0 && i < kSequencesAtOnce; ++i) {
    while (next != order.end() && !EndSequenceOf(tenant, *next)) ++next;
    if (next == order.end()) {
      // Those that are left have copies out, which end soon; else what is left is no sequence's.
      const bool left =
          std::any_of(sequence_places_.begin(), sequence_places_.end(), [&](const auto& each) {
            const SequencePlace& place = each.second;
            return &place.session->tenant == &tenant &&
                   !place.session->sequences[place.slot]->on_device();
          });
      if (left) return;
      EndLatestSession(tenant);
      tenant.take_back_at = now_ + kLetGoTime;
      return;
    }
    ++next;
    empty();
  }
}

void KvCore::AskBack(Tenant& tenant, uint64_t bytes) {
  if (bytes == 0) WithdrawSuspensions(tenant);
  if (tenant.wanted_back == bytes) return;
  tenant.wanted_back = bytes;
  for (const auto& [id, session] : sessions_) {
    if (&session->tenant != &tenant || session->ended) continue;
    // relaxed: a hint that orders nothing.
    session->memory.header()->wanted_back.store(bytes, std::memory_order_relaxed);
  }
}

void KvCore::ForgetJobOf(Sequence& sequence) {
  const uint64_t id = sequence.identity().id;
  for (std::unique_ptr<SequenceJob>& job :
       jobs_.Remove([id](const SequenceJob& one) { return one.sequence_id == id; })) {
    sequence.CancelJob();
    job.reset();
  }
}

bool KvCore::EndSequenceOf(Tenant& tenant, uint64_t sequence_id) {
  const SequencePlace place = sequence_places_.at(sequence_id);
  Session& session = *place.session;
  Sequence& sequence = *session.sequences[place.slot];
  ForgetJobOf(sequence);
  if (sequence.job_out()) return false;
  ++tenant.counters.sequences_taken_back;
  spdlog::warn(
      "sequence ended: other tenants want the memory that its tenant has borrowed: session={} "
      "tenant={} pid={} sequence={} priority={} rows={} charged_bytes={} own_bytes={} "
      "wanted_back_bytes={}",
      session.id, tenant.config.name, session.peer.pid, sequence_id, place.hints.priority,
      sequence.rows(), tenant.account.charged_bytes(), lending_.GuaranteedBytes(tenant.account),
      tenant.wanted_back);
  EraseSequence(session, place.slot);
  session.Board(place.slot)
      ->state.store(static_cast<uint32_t>(shm::BoardState::kTakenBack), std::memory_order_release);
  return true;
}

void KvCore::EndLatestSession(Tenant& tenant) {
  const auto last = std::find_if(sessions_.rbegin(), sessions_.rend(), [&](const auto& each) {
    return &each.second->tenant == &tenant && !each.second->ended;
  });
  if (last == sessions_.rend()) return;
  Session& session = *last->second;
  ++tenant.counters.sessions_taken_back;
  spdlog::warn(
      "session ended: other tenants want the memory that its tenant has borrowed: session={} "
      "tenant={} pid={} charged_bytes={} own_bytes={} wanted_back_bytes={}",
      session.id, tenant.config.name, session.peer.pid, tenant.account.charged_bytes(),
      lending_.GuaranteedBytes(tenant.account), tenant.wanted_back);
  session.memory.header()->end_reason.store(static_cast<uint32_t>(shm::EndReason::kMemoryTakenBack),
                                            std::memory_order_relaxed);
  EndSession(session.id);
}

}  // namespace kvasir::core
