// Account: what one tenant may take from the host pool, and what it has taken.
#ifndef KVASIR_DAEMON_CORE_ACCOUNT_H_
#define KVASIR_DAEMON_CORE_ACCOUNT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "allocator/group_allocator.h"
#include "allocator/host_pool.h"

namespace kvasir::core {

// Not thread-safe. `pool` must outlive it.
class Account final : public ExtentSource {
 public:
  Account(std::string tenant, uint64_t limit_bytes, HostPool& pool)
      : tenant_(std::move(tenant)), limit_bytes_(limit_bytes), pool_(pool) {}
  ~Account() override;

  // Errors: kResourceExhausted with tenant, wanted, charged and limit bytes.
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override;

  // Charges a frozen extent of a process before, which the pool has charged already. It may lead
  // beyond the limit: then nothing more is given out until enough has come back.
  void Adopt(const Extent& extent) { charged_bytes_ += extent.bytes(); }

  // The extent stays charged until the kernel says that nobody holds it (Settle).
  void ReturnExtent(std::unique_ptr<Extent> extent) override;

  bool MakeRoom() override { return make_room_ != nullptr && make_room_(); }
  // What the tenant gives up when it needs room. Set once.
  void set_make_room(std::function<bool()> make_room) { make_room_ = std::move(make_room); }

  // Destroys returned extents that nobody holds any more; true if some are still held.
  bool Settle();

  uint64_t charged_bytes() const { return charged_bytes_; }
  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t quarantined_bytes() const;

 private:
  const std::string tenant_;
  const uint64_t limit_bytes_;
  HostPool& pool_;
  std::function<bool()> make_room_;
  uint64_t charged_bytes_ = 0;
  std::vector<std::unique_ptr<Extent>> quarantine_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_ACCOUNT_H_
