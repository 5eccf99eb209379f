#include "client/extent_map.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/posix.h"
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
  for (auto& [slot, entry] : entries_) newest_->entries.push_back(std::move(entry));
}

std::shared_ptr<const void> ExtentMap::Hold() const {
  MutexLock lock(mutex_);
  return newest_;
}

void ExtentMap::Put(uint32_t slot, Entry entry) {
  Entry& there = entries_[slot];
  if (!there.map.empty() && newest_.use_count() > 1) {
    const auto next = std::make_shared<Retired>();
    newest_->entries.push_back(std::move(there));
    newest_->next = next;
    newest_ = next;
  }
  there = std::move(entry);
}

absl::Status ExtentMap::Map(Unmapped& what) {
  const shm::DeviceExtentNotice& notice = what.notice;
  Entry entry;
  const bool kept = notice.extent_kind == static_cast<uint32_t>(shm::ExtentKind::kKept);
  entry.access = kept ? Access::kReadOnly : Access::kReadWrite;
  entry.generation = notice.generation;
  if (notice.rows_bytes > 0) {
    const std::string_view uuid(notice.device_uuid);  // has its zero
    const auto device = std::find_if(devices_.begin(), devices_.end(), [&](device::Device* one) {
      return one->facts().uuid == uuid;
    });
    if (device == devices_.end()) {
      what.fds.clear();  // else the tenant would pay for what nobody can use
      return FailedPrecondition(
          "rows lie on a device that is not among ConnectOptions::devices: uuid={} devices={}",
          uuid, devices_.size());
    }
    UniqueFd rows(::fcntl(what.fds[1].get(), F_DUPFD_CLOEXEC, 0));
    if (!rows) return ErrnoStatus(errno, "fcntl F_DUPFD_CLOEXEC");
    entry.device = *device;
    entry.group_bytes = notice.group_bytes;
    entry.trailer_bytes = notice.trailer_bytes;
    KVASIR_ASSIGN_OR_RETURN(
        entry.rows, (*device)->ImportExtent(std::move(rows), notice.rows_bytes, entry.access));
  }
  KVASIR_ASSIGN_OR_RETURN(entry.map, MappedRegion::Map(what.fds[0], notice.bytes, entry.access));
  Put(notice.slot, std::move(entry));
  return absl::OkStatus();
}

absl::Status ExtentMap::ReceiveOne(Instant deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  KVASIR_ASSIGN_OR_RETURN(
      const bool readable,
      WaitReadable(socket_.get(), static_cast<int>(std::max<int64_t>(0, left.count()))));
  if (!readable) return DeadlineExceeded("no word from the daemon on the data socket");
  std::array<std::byte, sizeof(shm::DeviceExtentNotice) + 1> buffer{};
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, ReceiveMessage(socket_, buffer));
  const shm::DataMessage data{std::span(buffer).first(message.bytes), message.truncated,
                              message.fds.size()};
  Unmapped extent;
  if (shm::IsDeviceExtentNotice(data)) {
    KVASIR_ASSIGN_OR_RETURN(extent.notice, shm::ParseDeviceExtentNotice(data));
  } else {
    KVASIR_ASSIGN_OR_RETURN(const shm::ExtentNotice notice, shm::ParseExtentNotice(data));
    extent.notice.extent_kind = notice.extent_kind;
    extent.notice.slot = notice.slot;
    extent.notice.generation = notice.generation;
    extent.notice.bytes = notice.bytes;
  }
  extent.fds = std::move(message.fds);
  const uint32_t slot = extent.notice.slot;
  unmapped_.erase(slot);
  if (Map(extent).ok()) return absl::OkStatus();
  Put(slot, Entry());  // the daemon has given up what was there
  entries_.erase(slot);
  unmapped_.insert_or_assign(slot, std::move(extent));
  return absl::OkStatus();
}

absl::StatusOr<const ExtentMap::Entry*> ExtentMap::EntryOf(uint32_t slot, uint32_t generation,
                                                           Instant deadline) {
  for (;;) {
    const auto found = entries_.find(slot);
    if (found != entries_.end() && found->second.generation == generation) return &found->second;
    const auto waits = unmapped_.find(slot);
    if (waits != unmapped_.end() && waits->second.notice.generation == generation) {
      KVASIR_RETURN_IF_ERROR(Map(waits->second));
      unmapped_.erase(waits);
      continue;
    }
    KVASIR_RETURN_IF_ERROR(ReceiveOne(deadline));
  }
}

absl::StatusOr<std::byte*> ExtentMap::At(uint32_t slot, uint32_t generation, uint64_t offset,
                                         uint64_t bytes, Instant deadline, Access access) {
  MutexLock lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(const Entry* const entry, EntryOf(slot, generation, deadline));
  if (entry->rows != nullptr) {
    return DataLoss("block of host memory lies in an extent of a device: extent={} offset={}", slot,
                    offset);
  }
  if (offset > entry->map.bytes() || bytes > entry->map.bytes() - offset) {
    return DataLoss("block lies outside its extent: offset={} bytes={} extent_bytes={}", offset,
                    bytes, entry->map.bytes());
  }
  if (access == Access::kReadWrite && entry->access != Access::kReadWrite) {
    return DataLoss("block to be written lies in an extent of kept rows: extent={} offset={}", slot,
                    offset);
  }
  return entry->map.data() + offset;
}

absl::StatusOr<GroupPlace> ExtentMap::GroupAt(uint32_t slot, uint32_t generation, uint64_t offset,
                                              const shm::GroupGeometry& geometry, Instant deadline,
                                              Access access) {
  {
    MutexLock lock(mutex_);
    KVASIR_ASSIGN_OR_RETURN(const Entry* const entry, EntryOf(slot, generation, deadline));
    if (entry->rows != nullptr) {
      // That both halves hold equally many groups has been judged (ParseDeviceExtentNotice).
      if (entry->group_bytes != geometry.pos_off ||
          entry->trailer_bytes != geometry.bytes - geometry.pos_off ||
          offset % entry->group_bytes != 0 || offset >= entry->rows->bytes()) {
        return DataLoss(
            "block is no group of its extent: extent={} offset={} group_bytes={} rows_bytes={} "
            "wanted_bytes={}",
            slot, offset, entry->group_bytes, entry->rows->bytes(), geometry.pos_off);
      }
      if (access == Access::kReadWrite && entry->access != Access::kReadWrite) {
        return DataLoss("block to be written lies in an extent of kept rows: extent={} offset={}",
                        slot, offset);
      }
      return GroupPlace{entry->rows->address() + offset,
                        entry->map.data() + offset / entry->group_bytes * entry->trailer_bytes,
                        entry->device};
    }
  }
  KVASIR_ASSIGN_OR_RETURN(std::byte* const base,
                          At(slot, generation, offset, geometry.bytes, deadline, access));
  return GroupPlace{base, base + geometry.pos_off, nullptr};
}

uint64_t ExtentMap::mapped_bytes() const {
  MutexLock lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [slot, entry] : entries_) {
    bytes += entry.map.bytes() + (entry.rows == nullptr ? 0 : entry.rows->bytes());
  }
  return bytes;
}

}  // namespace kvasir
