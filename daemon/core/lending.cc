#include "daemon/core/lending.h"

#include <algorithm>
#include <cstddef>

#include "base/check.h"
#include "base/error.h"
#include "base/shortage.h"

namespace kvasir::core {

Lending::Entry& Lending::EntryOf(const Account& account) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.account == &account; });
  KVASIR_CHECK(found != entries_.end(), "an account that was not added: {}", account.tenant());
  return *found;
}

const Lending::Entry& Lending::EntryOf(const Account& account) const {
  return const_cast<Lending*>(this)->EntryOf(account);
}

std::vector<uint64_t> Lending::Guarantees() const {
  std::vector<fairness::Claim> claims;
  for (const Entry& entry : entries_) {
    const Budget& budget = entry.account->budget();
    claims.push_back(
        {budget.reserved_bytes, budget.limit_bytes, budget.weight, budget.limit_bytes});
  }
  return fairness::FairShares(pool_.counts().pool_bytes, claims);
}

uint64_t Lending::FreeBytes() const {
  const HostPoolCounts counts = pool_.counts();
  return counts.idle_bytes + counts.ready_bytes;
}

std::vector<uint64_t> Lending::Divide(const Account* asking, uint64_t bytes) const {
  const std::vector<uint64_t> own = Guarantees();
  std::vector<fairness::Claim> claims;
  uint64_t owned = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Account& account = *entries_[i].account;
    const Budget& budget = account.budget();
    uint64_t wanted = account.pool_bytes() + entries_[i].claim;
    if (&account == asking) wanted = std::max(wanted, account.pool_bytes() + bytes);
    const uint64_t limit = account.may_borrow() ? budget.limit_bytes : own[i];
    claims.push_back({own[i], limit, budget.weight, wanted});
    owned += std::min(own[i], wanted);
  }
  const uint64_t pool = pool_.counts().pool_bytes;
  const uint64_t lent = pool - pool / kSpareParts;
  return fairness::FairShares(std::max(lent, std::min(owned, pool)), claims);
}

uint64_t Lending::GuaranteedBytes(const Account& account) const {
  return Guarantees()[static_cast<size_t>(&EntryOf(account) - entries_.data())];
}

bool Lending::OthersClaim(const Account& account) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.account != &account && entry.claim > 0 && now_ < entry.until;
  });
}

bool Lending::HasClaims() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const Entry& entry) { return entry.claim > 0; });
}

absl::Status Lending::Admit(Account& account, uint64_t bytes) {
  const uint64_t wanted = account.pool_bytes() + bytes;
  const uint64_t guaranteed = GuaranteedBytes(account);
  if (wanted <= guaranteed) return absl::OkStatus();
  if (!account.may_borrow()) {
    return WithShortage(
        ResourceExhausted(
            "tenant has its own part of the pool and may not borrow, since a process of its can "
            "override file permissions: tenant={} wanted_bytes={} charged_bytes={} own_bytes={}",
            account.tenant(), bytes, account.charged_bytes(), guaranteed),
        {"tenant.reserved_bytes", wanted - guaranteed, "own sequences and prefixes", 4 * kRetry});
  }
  if (OthersClaim(account)) {
    const size_t at = static_cast<size_t>(&EntryOf(account) - entries_.data());
    const uint64_t share = Divide(&account, bytes)[at];
    if (wanted > share) {
      return Refused(
          account, bytes,
          WithShortage(ResourceExhausted("other tenants want their parts of the pool: tenant={} "
                                         "wanted_bytes={} charged_bytes={} share_bytes={}",
                                         account.tenant(), bytes, account.charged_bytes(), share),
                       {"tenant.weight", wanted - share, "other tenants", kRetry}));
    }
  }
  const uint64_t free = FreeBytes(), spare = SpareBytes();
  if (free < bytes + spare) {
    return Refused(
        account, bytes,
        WithShortage(ResourceExhausted(
                         "what is left of the pool is not lent: tenant={} wanted_bytes={} "
                         "charged_bytes={} own_bytes={} free_bytes={} spare_bytes={}",
                         account.tenant(), bytes, account.charged_bytes(), guaranteed, free, spare),
                     {"memory.pool_bytes", bytes + spare - free, "other tenants", kRetry}));
  }
  return absl::OkStatus();
}

void Lending::AddClaim(Entry& entry, uint64_t bytes) {
  if (now_ >= entry.until) {
    entry.since = now_;
    entry.claim = 0;
    entry.step = SpareBytes();
  }
  const uint64_t has = entry.account->pool_bytes(), own = GuaranteedBytes(*entry.account);
  if (has < own) {
    if (entry.claim == 0) entry.step *= 2;
    bytes = std::max(bytes, std::min(entry.step, own - has));
  }
  // The largest of those that one call tries, one after the other.
  entry.claim = std::max(entry.claim, bytes);
  entry.until = now_ + kClaimTime;
  if (wake_ && IsOwed(*entry.account)) wake_();
}

absl::Status Lending::Refused(Account& account, uint64_t bytes, const absl::Status& why) {
  AddClaim(EntryOf(account), bytes);
  return why;
}

void Lending::Took(Account& account, uint64_t bytes) {
  Entry& entry = EntryOf(account);
  entry.claim -= std::min(entry.claim, bytes);
  // It has begun on what is not lent: what others owe it is to come before that has an end.
  if (entry.claim == 0 && FreeBytes() < SpareBytes() && entries_.size() > 1) AddClaim(entry, 0);
}

bool Lending::IsOwed(const Account& account) const {
  const Entry& entry = EntryOf(account);
  if (entry.claim == 0 || now_ >= entry.until || now_ >= entry.since + kWaitTime) return false;
  const std::vector<uint64_t> shares = Divide(nullptr, 0);
  bool others_owe = false;
  for (size_t i = 0; i < entries_.size(); ++i) {
    others_owe |= entries_[i].account->pool_bytes() > shares[i];
  }
  const auto at = static_cast<size_t>(&entry - entries_.data());
  return others_owe && shares[at] > account.pool_bytes();
}

std::vector<Lending::Debt> Lending::Debts() {
  std::vector<Debt> debts;
  for (Entry& entry : entries_) {
    if (now_ >= entry.until) entry.claim = 0;
  }
  if (!HasClaims()) return debts;
  const std::vector<uint64_t> shares = Divide(nullptr, 0);
  uint64_t wanted = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const uint64_t has = entries_[i].account->pool_bytes();
    if (entries_[i].claim > 0 && shares[i] > has) wanted += shares[i] - has;
  }
  const uint64_t free = FreeBytes(), spare = SpareBytes();
  if (wanted == 0 || wanted + spare <= free) return debts;
  uint64_t missing = wanted + spare - free;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const uint64_t has = entries_[i].account->pool_bytes();
    if (has > shares[i]) debts.push_back({entries_[i].account, has - shares[i]});
  }
  std::stable_sort(debts.begin(), debts.end(),
                   [](const Debt& a, const Debt& b) { return a.bytes > b.bytes; });
  for (Debt& debt : debts) {
    debt.bytes = std::min(debt.bytes, missing);
    missing -= debt.bytes;
  }
  std::erase_if(debts, [](const Debt& debt) { return debt.bytes == 0; });
  return debts;
}

}  // namespace kvasir::core
