// DeviceAccount: what one tenant may take of the pool of one device, and what it has taken.
//
// Its extents are pairs: rows in the device's memory, which it pays, and trailers in host memory,
// which the tenant's Account pays. A pair has one owner for life. It is destroyed once the kernel
// says that no process holds its host half: whoever has let go of that one, or has died, has let go
// of the other. A process that keeps the device's half alone is not seen
// (docs/adr/0033-device-memory.md): the pool counts those bytes idle, and the device has not got
// them.
#ifndef KVASIR_DAEMON_CORE_DEVICE_ACCOUNT_H_
#define KVASIR_DAEMON_CORE_DEVICE_ACCOUNT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "allocator/device_memory.h"
#include "base/clock.h"
#include "daemon/core/account.h"
#include "daemon/core/budget.h"
#include "daemon/core/group_source.h"

namespace kvasir::core {

class DeviceAccount;

// Divides one device's pool. Device memory cannot be taken back from who has it, so what a tenant
// has reserved is lent to nobody. The rest is whoever's asks first; but while a tenant is short of
// its own part (its reservation, and its part by weight of what nobody reserved), others that are
// above theirs get nothing. Not thread-safe.
class DeviceShares {
 public:
  // How long a tenant is remembered as one that wants memory, after it was last refused.
  static constexpr std::chrono::milliseconds kClaimTime{2000};

  // `now` must outlive it.
  DeviceShares(uint64_t pool_bytes, const Instant& now) : pool_bytes_(pool_bytes), now_(now) {}
  // Accounts must outlive it; all are added before the first is used.
  void Add(DeviceAccount& account) { entries_.push_back({&account, {}}); }

  // Errors: kResourceExhausted with reason and figures.
  absl::Status Admit(const DeviceAccount& account, uint64_t bytes);
  // The pool or the device had none.
  void Refused(const DeviceAccount& account);
  uint64_t OwnBytes(const DeviceAccount& account) const;
  // Others that are above their own parts give up what they hold for later only, who is furthest
  // above first, for an account that is below its own. True if the pool has more for it.
  bool MakeRoomFor(const DeviceAccount& account);

 private:
  struct Entry {
    DeviceAccount* account = nullptr;
    Instant wants_until;
  };
  std::vector<uint64_t> OwnParts() const;

  const uint64_t pool_bytes_;
  const Instant& now_;
  std::vector<Entry> entries_;
};

// Not thread-safe.
class DeviceAccount {
 public:
  // `owner` tells tenants apart in the pool's books. All must outlive it.
  DeviceAccount(uint64_t owner, const DeviceBudget& budget, DeviceMemory& memory,
                DeviceShares& shares, Account& host)
      : owner_(owner), budget_(budget), memory_(memory), shares_(shares), host_(host) {}
  // What peers still map lives on in them until they let go.
  ~DeviceAccount();
  DeviceAccount(const DeviceAccount&) = delete;
  DeviceAccount& operator=(const DeviceAccount&) = delete;

  // A pair for `groups` groups. Errors: kResourceExhausted with the figures of what is in the way;
  // the device's.
  absl::StatusOr<std::unique_ptr<Extent>> TakePair(uint64_t groups, uint64_t group_bytes,
                                                   uint64_t trailer_bytes, ExtentUse use);
  // It stays charged until nobody holds it (Settle).
  void ReturnPair(std::unique_ptr<Extent> pair) { quarantine_.push_back(std::move(pair)); }
  // Destroys returned pairs that nobody holds any more; true if some are still held.
  bool Settle();
  // Gives idle extents of this device back. Set once.
  void set_return_idle(std::function<bool()> give) { return_idle_ = std::move(give); }
  // Gives up a little of what the tenant holds on this device for later only; false if there is
  // nothing, or groups are not `of_use` and no extent could come back. Set once.
  void set_give_up_cached(std::function<bool(bool of_use)> give) {
    give_up_cached_ = std::move(give);
  }
  // Where groups can come from that could not be had: idle extents, host memory where that was what
  // the last pair lacked, other tenants above their own parts, and what the tenant holds for later.
  // `got_groups`: whether groups have come free that whoever asks can use; null: extents alone are
  // of use. True if it is worth another try.
  bool MakeRoom(const std::function<bool()>& got_groups);
  // What MakeRoomFor() takes of it; true if the pool has more then.
  bool GiveUpForOthers();

  const std::string& tenant() const { return host_.tenant(); }
  DeviceMemory& memory() const { return memory_; }
  const DeviceBudget& budget() const { return budget_; }
  void set_budget(const DeviceBudget& budget) { budget_ = budget; }
  uint64_t charged_bytes() const { return charged_bytes_; }  // rounded to the granularity
  uint64_t waste_bytes() const { return waste_bytes_; }      // of those, what rounding takes
  uint64_t own_bytes() const { return shares_.OwnBytes(*this); }
  // Of the tenant's host memory, for the books.
  uint64_t trailer_bytes() const { return trailer_bytes_; }
  uint64_t quarantined_rows_bytes() const;

 private:
  absl::StatusOr<std::unique_ptr<device::DeviceExtent>> TakeRows(uint64_t bytes, uint64_t charge);
  void Destroy(std::unique_ptr<Extent> pair);
  bool GiveUpCached(const std::function<bool()>& got_groups);

  const uint64_t owner_;
  DeviceBudget budget_;
  DeviceMemory& memory_;
  DeviceShares& shares_;
  Account& host_;
  std::function<bool()> return_idle_;
  std::function<bool(bool of_use)> give_up_cached_;
  bool host_is_short_ = false, pool_is_short_ = false;  // when the last pair was asked for
  uint64_t charged_bytes_ = 0, waste_bytes_ = 0, trailer_bytes_ = 0;
  std::vector<std::unique_ptr<Extent>> quarantine_;
};

// Group allocators of one use on one device, by shape. Not thread-safe.
class DeviceAllocators final : public GroupSource {
 public:
  // `account` must outlive it.
  DeviceAllocators(ExtentUse use, DeviceAccount& account) : use_(use), account_(account) {}

  GroupAllocator& For(const shm::GroupGeometry& geometry) override;
  uint64_t held_bytes() const;
  uint64_t rows_bytes() const;  // of its extents
  // Gives pairs that hold nothing and that nobody else has to the account.
  void ReturnIdleExtents();
  bool AnyUnmapped() const;
  bool Owns(const GroupAllocator* allocator) const;
  // Gives every pair to the account. REQUIRES: nothing is held.
  void Clear() { by_shape_.clear(); }

 private:
  // Of one shape.
  class Source final : public ExtentSource {
   public:
    Source(DeviceAccount& account, ExtentUse use, uint64_t group_bytes, uint64_t trailer_bytes)
        : account_(account), use_(use), group_bytes_(group_bytes), trailer_bytes_(trailer_bytes) {}
    absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override {
      return account_.TakePair(bytes / group_bytes_, group_bytes_, trailer_bytes_, use);
    }
    void ReturnExtent(std::unique_ptr<Extent> extent) override {
      account_.ReturnPair(std::move(extent));
    }
    bool MakeRoom() override;
    void set_allocator(const GroupAllocator* allocator) { allocator_ = allocator; }

   private:
    DeviceAccount& account_;
    const ExtentUse use_;
    const uint64_t group_bytes_, trailer_bytes_;
    const GroupAllocator* allocator_ = nullptr;  // that asks
  };
  struct Shape {
    std::unique_ptr<Source> source;  // before its allocator, which refers to it
    std::unique_ptr<GroupAllocator> allocator;
  };

  const ExtentUse use_;
  DeviceAccount& account_;
  std::map<std::pair<uint64_t, uint64_t>, Shape> by_shape_;  // by bytes of rows and of the trailer
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_DEVICE_ACCOUNT_H_
