#include "client/extent_map.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/data_messages.h"

namespace kvasir {

ExtentMap::Retired::~Retired() {
  // One after the other: a long chain that ends at once would be as deep a recursion.
  std::shared_ptr<Retired> rest = std::move(next);
  while (rest != nullptr && rest.use_count() == 1) {
    std::shared_ptr<Retired> after = std::move(rest->next);
    rest = std::move(after);
  }
}

ExtentMap::~ExtentMap() {
  MutexLock lock(mutex_);
  for (auto& [slot, entry] : entries_) newest_->maps.push_back(std::move(entry.map));
}

std::shared_ptr<const void> ExtentMap::Hold() const {
  MutexLock lock(mutex_);
  return newest_;
}

absl::Status ExtentMap::ReceiveOne(Instant deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  KVASIR_ASSIGN_OR_RETURN(
      const bool readable,
      WaitReadable(socket_.get(), static_cast<int>(std::max<int64_t>(0, left.count()))));
  if (!readable) return DeadlineExceeded("no word from the daemon on the data socket");
  std::array<std::byte, sizeof(shm::ExtentNotice) + 1> buffer{};
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, ReceiveMessage(socket_, buffer));
  KVASIR_ASSIGN_OR_RETURN(const shm::ExtentNotice notice,
                          shm::ParseExtentNotice({std::span(buffer).first(message.bytes),
                                                  message.truncated, message.fds.size()}));
  const bool kept = notice.extent_kind == static_cast<uint32_t>(shm::ExtentKind::kKept);
  const Access access = kept ? Access::kReadOnly : Access::kReadWrite;
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map,
                          MappedRegion::Map(message.fds[0], notice.bytes, access));
  Entry& entry = entries_[notice.slot];
  if (!entry.map.empty() && newest_.use_count() > 1) {
    const auto next = std::make_shared<Retired>();
    newest_->maps.push_back(std::move(entry.map));
    newest_->next = next;
    newest_ = next;
  }
  entry = {std::move(map), notice.generation, access};
  return absl::OkStatus();
}

absl::StatusOr<std::byte*> ExtentMap::At(uint32_t slot, uint32_t generation, uint64_t offset,
                                         uint64_t bytes, Instant deadline, Access access) {
  MutexLock lock(mutex_);
  for (;;) {
    const auto found = entries_.find(slot);
    if (found != entries_.end() && found->second.generation == generation) {
      const MappedRegion& map = found->second.map;
      if (offset > map.bytes() || bytes > map.bytes() - offset) {
        return DataLoss("block lies outside its extent: offset={} bytes={} extent_bytes={}", offset,
                        bytes, map.bytes());
      }
      if (access == Access::kReadWrite && found->second.access != Access::kReadWrite) {
        return DataLoss("block to be written lies in an extent of kept rows: extent={} offset={}",
                        slot, offset);
      }
      return map.data() + offset;
    }
    KVASIR_RETURN_IF_ERROR(ReceiveOne(deadline));
  }
}

uint64_t ExtentMap::mapped_bytes() const {
  MutexLock lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [slot, entry] : entries_) bytes += entry.map.bytes();
  return bytes;
}

}  // namespace kvasir
