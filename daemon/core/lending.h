// Lending: who may have the pool's memory while more is wanted than there is.
//
// Idle memory is lent to whoever asks, up to its limit. What is a tenant's own (its reservation,
// and its part by weight of what nobody reserved) it gets back: then others owe it what they have
// above their fair shares (policies/fairness). The pool's last bytes are lent to nobody, so that an
// owner's first extents need no taking back.
//
// Decides only; KvCore carries it out (kv_core_lending.cc). Not thread-safe.
#ifndef KVASIR_DAEMON_CORE_LENDING_H_
#define KVASIR_DAEMON_CORE_LENDING_H_

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "daemon/core/account.h"
#include "policies/fairness/fair_shares.h"

namespace kvasir::core {

class Lending final : public Lender {
 public:
  // How long a tenant is remembered as one that wants memory, after it was last refused.
  static constexpr std::chrono::milliseconds kClaimTime{2000};
  // How long a call waits for memory that others owe its tenant.
  static constexpr std::chrono::milliseconds kWaitTime{2000};
  // Of the pool: its part that is not lent.
  static constexpr uint64_t kSpareParts = 32;

  // `pool` and `now` must outlive it.
  Lending(HostPool& pool, const Instant& now) : pool_(pool), now_(now) {}

  // Accounts must outlive it; all are added before the first is used.
  void Add(Account& account) { entries_.push_back({&account, 0, 0, {}, {}}); }
  // Is called where somebody wants memory that others owe it, so that Debts() are looked at.
  void set_wake(std::function<void()> wake) { wake_ = std::move(wake); }

  absl::Status Admit(Account& account, uint64_t bytes) override;
  absl::Status Refused(Account& account, uint64_t bytes, const absl::Status& why) override;
  void Took(Account& account, uint64_t bytes) override;

  // What each has for sure, however much the others want: as if all wanted all they may have. In
  // the order in which they were added.
  std::vector<uint64_t> Guarantees() const;
  uint64_t GuaranteedBytes(const Account& account) const override;
  // It wants more than it has, and others owe it that, for less than kWaitTime: worth waiting for.
  bool IsOwed(const Account& account) const;
  bool HasClaims() const;

  // What tenants are to give back for the sake of others now: who has most above its share first.
  struct Debt {
    const Account* account = nullptr;
    uint64_t bytes = 0;
  };
  // Forgets claims that nobody has made again for kClaimTime.
  std::vector<Debt> Debts();

 private:
  struct Entry {
    Account* account = nullptr;
    uint64_t claim = 0;  // bytes beyond what it is charged; 0: none
    uint64_t step = 0;   // least of an owner's next claim
    Instant since, until;
  };

  // Remembers that it wants so many bytes. An owner is likely to want more: its claims begin with
  // what is not lent, and double.
  void AddClaim(Entry& entry, uint64_t bytes);
  uint64_t FreeBytes() const;
  uint64_t SpareBytes() const { return pool_.counts().pool_bytes / kSpareParts; }

  Entry& EntryOf(const Account& account);
  const Entry& EntryOf(const Account& account) const;
  // How the pool is divided, as things are, with what `asking` wants beyond its claim. Of what is
  // not lent owners may have their own part.
  std::vector<uint64_t> Divide(const Account* asking, uint64_t bytes) const;  // by entry
  bool OthersClaim(const Account& account) const;

  HostPool& pool_;
  const Instant& now_;
  std::function<void()> wake_;
  std::vector<Entry> entries_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_LENDING_H_
