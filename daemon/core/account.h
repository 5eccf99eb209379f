// Account: what one tenant may take from the host pool, and what it has taken.
#ifndef KVASIR_DAEMON_CORE_ACCOUNT_H_
#define KVASIR_DAEMON_CORE_ACCOUNT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "allocator/group_allocator.h"
#include "allocator/host_pool.h"
#include "base/clock.h"
#include "daemon/core/budget.h"

namespace kvasir::core {

class Account;

// Decides about the pool as a whole (daemon/core/lending.h).
class Lender {
 public:
  // In about this time something may have come back.
  static constexpr std::chrono::milliseconds kRetry{250};

  virtual ~Lender() = default;
  // Before so many bytes are taken from the pool. Errors: kResourceExhausted with reason and
  // figures.
  virtual absl::Status Admit(Account& account, uint64_t bytes) = 0;
  // The pool had none, `why`: the account is remembered as one that wants them. The error to give.
  virtual absl::Status Refused(Account& account, uint64_t bytes, const absl::Status& why) = 0;
  virtual void Took(Account& account, uint64_t bytes) = 0;
  // What the tenant has in any case, whatever others want.
  virtual uint64_t GuaranteedBytes(const Account& account) const = 0;
};

// Not thread-safe. `pool` must outlive it, and `lender`, which may be null: the limit decides
// alone.
class Account final : public ExtentSource {
 public:
  Account(std::string tenant, const Budget& budget, HostPool& pool, Lender* lender)
      : tenant_(std::move(tenant)), budget_(budget), pool_(pool), lender_(lender) {}
  ~Account() override;

  // Errors: kResourceExhausted with tenant, wanted, charged and limit bytes, or the lender's;
  // kUnavailable while it stands.
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override;
  // Likewise of what is the tenant's own in any case: for what nobody can take back from it.
  absl::StatusOr<std::unique_ptr<Extent>> TakeOwnExtent(uint64_t bytes, ExtentUse use);

  // Charges a frozen extent of a process before, which the pool has charged already. It may lead
  // beyond the limit: then nothing more is given out until enough has come back.
  void Adopt(const Extent& extent) { charged_bytes_ += extent.bytes(); }

  // The extent stays charged until the kernel says that nobody holds it (Settle).
  void ReturnExtent(std::unique_ptr<Extent> extent) override;

  bool MakeRoom() override { return !stands_ && make_room_ != nullptr && make_room_(); }
  // What the tenant gives up when it needs room. Set once.
  void set_make_room(std::function<bool()> make_room) { make_room_ = std::move(make_room); }

  // Destroys returned extents that nobody holds any more; true if some are still held.
  bool Settle();

  // Takes back returned extents that somebody has held since `before` or longer, by this call's
  // clock: what was returned later than the last call is stamped with `now`. Their ids. They stay
  // charged to the tenant until nobody holds them, the pool has their bytes at once. Extents that
  // cannot be taken back wait as before.
  std::vector<uint64_t> TakeBack(Instant now, Instant before);

  // While it lives, the account stands as it is: it takes nothing from the pool, is lent nothing,
  // and makes no room, but remembers that it was asked. For who has the tenant's share of the core
  // alone (tenant_verbs.h).
  class Standing {
   public:
    explicit Standing(Account& account) : account_(account) {
      account_.stands_ = true;
      account_.was_asked_ = false;
    }
    ~Standing() { account_.stands_ = false; }
    Standing(const Standing&) = delete;
    Standing& operator=(const Standing&) = delete;
    bool asked() const { return account_.was_asked_; }

   private:
    Account& account_;
  };

  const std::string& tenant() const { return tenant_; }
  const Budget& budget() const { return budget_; }
  void set_budget(const Budget& budget) { budget_ = budget; }
  // Of the pool and of what was taken back while others hold on to it.
  uint64_t charged_bytes() const { return charged_bytes_; }
  // Of those, bytes that the pool does not have.
  uint64_t pool_bytes() const { return charged_bytes_ - taken_back_bytes_; }
  uint64_t taken_back_bytes() const { return taken_back_bytes_; }
  uint64_t limit_bytes() const { return budget_.limit_bytes; }
  uint64_t quarantined_bytes() const;
  // Of those, what comes back to the pool, whoever holds it.
  uint64_t coming_bytes() const;
  // A peer of its could keep what is taken back: it may have its own part alone.
  bool may_borrow() const { return may_borrow_; }
  void set_may_borrow(bool may_borrow) { may_borrow_ = may_borrow; }

 private:
  struct Returned {
    std::unique_ptr<Extent> extent;
    uint64_t bytes = 0;
    std::optional<Instant> since = {};  // of the first TakeBack() that has seen it
    bool stays = false;                 // it cannot be taken back
  };

  const std::string tenant_;
  Budget budget_;
  HostPool& pool_;
  Lender* const lender_;
  std::function<bool()> make_room_;
  bool may_borrow_ = true;
  bool stands_ = false, was_asked_ = false;
  uint64_t charged_bytes_ = 0;
  uint64_t taken_back_bytes_ = 0;
  std::vector<Returned> quarantine_;
  std::vector<Returned> taken_back_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_ACCOUNT_H_
