#include "daemon/shm/data_session.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "allocator/device_memory.h"
#include "base/status_macros.h"
#include "ring/doorbell.h"

namespace kvasir {
namespace {

shm::DeviceExtentNotice PairNotice(const shm::ExtentNotice& notice, const DeviceRows& rows) {
  const device::DeviceFacts& facts = rows.device->facts();
  shm::DeviceExtentNotice pair{};
  pair.kind = static_cast<uint32_t>(shm::MessageKind::kDeviceExtent);
  pair.extent_kind = notice.extent_kind;
  pair.slot = notice.slot;
  pair.generation = notice.generation;
  pair.bytes = notice.bytes;
  pair.extent_id = notice.extent_id;
  pair.rows_bytes = rows.memory->bytes();
  pair.granularity_bytes = facts.granularity_bytes;
  pair.group_bytes = rows.group_bytes;
  pair.trailer_bytes = rows.trailer_bytes;
  pair.device_kind = static_cast<uint32_t>(
      facts.kind == device::DeviceKind::kCuda ? shm::DeviceKind::kCuda : shm::DeviceKind::kHost);
  std::memcpy(pair.device_uuid, facts.uuid.data(),
              std::min(facts.uuid.size(), sizeof(pair.device_uuid) - 1));
  return pair;
}

}  // namespace

absl::Status DataSession::MakeSegments(const core::SessionLimits& limits, uint64_t boot_epoch) {
  const core::SegmentSizes sizes = core::SegmentSizesFor(limits);
  KVASIR_ASSIGN_OR_RETURN(d_, Segment::Create("kvasir-session-d", sizes.d_bytes));
  KVASIR_ASSIGN_OR_RETURN(e_, Segment::Create("kvasir-session-e", sizes.e_bytes));
  KVASIR_ASSIGN_OR_RETURN(doorbell_, ring::MakeDoorbell());
  const shm::RingGeometry geometry =
      shm::RingGeometryFor(limits.ring, sizes.ring_d_off, sizes.ring_e_off, limits.sequences_max);
  ring_ = std::make_unique<RingEnds>(
      ring::DaemonRingMemory::Create(geometry, boot_epoch, d_.map.data(), e_.map.data()));
  return absl::OkStatus();
}

absl::Status DataSession::SendWelcome(const core::SessionToken& token, uint64_t boot_epoch) {
  shm::Welcome welcome{};
  welcome.kind = static_cast<uint32_t>(shm::MessageKind::kWelcome);
  welcome.abi = shm::kAbiVersion;
  welcome.boot_epoch = boot_epoch;
  welcome.d_bytes = d_.map.bytes();
  welcome.e_bytes = e_.map.bytes();
  std::memcpy(welcome.token, token.bytes.data(), sizeof(welcome.token));
  welcome.session_id = session_id_;
  KVASIR_ASSIGN_OR_RETURN(const UniqueFd d, Reopen(d_.fd, O_RDONLY));
  KVASIR_ASSIGN_OR_RETURN(const UniqueFd e, Reopen(e_.fd, O_RDWR));
  const std::array<int, 3> fds{d.get(), e.get(), doorbell_.get()};
  return SendMessage(socket_, std::as_bytes(std::span(&welcome, 1)), fds);
}

absl::Status DataSession::SendExtent(const shm::ExtentNotice& notice, const Extent& extent) {
  KVASIR_ASSIGN_OR_RETURN(const UniqueFd fd, extent.OpenForPeer());
  if (const DeviceRows* const rows = extent.device_rows()) {
    KVASIR_ASSIGN_OR_RETURN(const UniqueFd memory, rows->memory->ExportFd());
    const shm::DeviceExtentNotice pair = PairNotice(notice, *rows);
    const std::array<int, 2> fds{fd.get(), memory.get()};
    return SendMessage(socket_, std::as_bytes(std::span(&pair, 1)), fds);
  }
  const std::array<int, 1> fds{fd.get()};
  return SendMessage(socket_, std::as_bytes(std::span(&notice, 1)), fds);
}

void DataSession::CloseSocket() { (void)::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace kvasir
