#include "proto/shm/data_messages.h"

#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "proto/shm/layout_hash.h"

namespace kvasir::shm {
namespace {

constexpr int32_t kCodeMax = 16;  // of google.rpc.Code
constexpr size_t kWelcomeFds = 3;

// A copy: the bytes of a message may lie anywhere. REQUIRES: there are as many.
template <typename Message>
Message CopyOf(std::span<const std::byte> bytes) {
  Message message;
  std::memcpy(&message, bytes.data(), sizeof(message));
  return message;
}

uint32_t KindOf(std::span<const std::byte> bytes) {
  return bytes.size() < sizeof(uint32_t) ? 0 : CopyOf<uint32_t>(bytes);
}

bool Is(const DataMessage& message, MessageKind kind, size_t bytes) {
  return !message.truncated && message.bytes.size() == bytes &&
         KindOf(message.bytes) == static_cast<uint32_t>(kind);
}

absl::Status ErrorOf(const Refusal& refusal) {
  const std::string text(refusal.text, ::strnlen(refusal.text, sizeof(refusal.text)));
  const bool known = refusal.code > 0 && refusal.code <= kCodeMax;
  return MakeError(known ? static_cast<absl::StatusCode>(refusal.code) : absl::StatusCode::kUnknown,
                   text);
}

bool IsExtentKind(uint32_t kind) {
  return kind == static_cast<uint32_t>(ExtentKind::kRecent) ||
         kind == static_cast<uint32_t>(ExtentKind::kKept);
}

// Whether `count` pieces of `size` bytes from `offset` on end at `end` or before.
bool Fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t end) {
  return offset <= end && count <= (end - offset) / size;
}

}  // namespace

absl::Status CheckHello(const DataMessage& message) {
  const bool whole = message.bytes.size() == sizeof(Hello) && !message.truncated;
  const Hello hello = whole ? CopyOf<Hello>(message.bytes) : Hello{};
  if (!whole || message.fds != 0 || hello.magic != kHelloMagic ||
      hello.kind != static_cast<uint32_t>(MessageKind::kHello) || hello.reserved != 0) {
    return InvalidArgument("hello is malformed: bytes={} expected={}", message.bytes.size(),
                           sizeof(Hello));
  }
  if (hello.abi_min > kAbiVersion || hello.abi_max < kAbiVersion) {
    return FailedPrecondition(
        "no common version of the shared-memory protocol: client_min={} client_max={} daemon={}",
        hello.abi_min, hello.abi_max, kAbiVersion);
  }
  return absl::OkStatus();
}

absl::StatusOr<Welcome> ParseAnswer(const DataMessage& message) {
  if (message.bytes.empty()) return Unavailable("the daemon closed the data socket");
  if (Is(message, MessageKind::kRefusal, sizeof(Refusal))) {
    return ErrorOf(CopyOf<Refusal>(message.bytes));
  }
  if (!Is(message, MessageKind::kWelcome, sizeof(Welcome)) || message.fds != kWelcomeFds) {
    return DataLoss("malformed welcome: bytes={} fds={}", message.bytes.size(), message.fds);
  }
  const auto welcome = CopyOf<Welcome>(message.bytes);
  if (welcome.d_bytes < kHeaderBytes || welcome.e_bytes < kHeaderBytes) {
    return DataLoss("malformed welcome: d_bytes={} e_bytes={}", welcome.d_bytes, welcome.e_bytes);
  }
  return welcome;
}

absl::StatusOr<ExtentNotice> ParseExtentNotice(const DataMessage& message) {
  if (message.bytes.empty()) return Unavailable("the daemon closed the session");
  if (!Is(message, MessageKind::kExtent, sizeof(ExtentNotice)) || message.fds != 1) {
    return DataLoss("malformed message on the data socket: bytes={} fds={}", message.bytes.size(),
                    message.fds);
  }
  const auto notice = CopyOf<ExtentNotice>(message.bytes);
  if (notice.bytes == 0 || !IsExtentKind(notice.extent_kind)) {
    return DataLoss("malformed notice of an extent: bytes={} kind={}", notice.bytes,
                    notice.extent_kind);
  }
  return notice;
}

bool IsDeviceExtentNotice(const DataMessage& message) {
  return KindOf(message.bytes) == static_cast<uint32_t>(MessageKind::kDeviceExtent);
}

absl::StatusOr<DeviceExtentNotice> ParseDeviceExtentNotice(const DataMessage& message) {
  if (!Is(message, MessageKind::kDeviceExtent, sizeof(DeviceExtentNotice)) || message.fds != 2) {
    return DataLoss("malformed message on the data socket: bytes={} fds={}", message.bytes.size(),
                    message.fds);
  }
  const auto notice = CopyOf<DeviceExtentNotice>(message.bytes);
  const bool kind = IsExtentKind(notice.extent_kind) && notice.reserved == 0 &&
                    (notice.device_kind == static_cast<uint32_t>(DeviceKind::kHost) ||
                     notice.device_kind == static_cast<uint32_t>(DeviceKind::kCuda));
  const size_t uuid = ::strnlen(notice.device_uuid, sizeof(notice.device_uuid));
  const bool groups =
      notice.group_bytes > 0 && notice.trailer_bytes > 0 && notice.bytes > 0 &&
      notice.group_bytes % kPageBytes == 0 && notice.trailer_bytes % kPageBytes == 0 &&
      notice.rows_bytes % notice.group_bytes == 0 && notice.bytes % notice.trailer_bytes == 0 &&
      notice.rows_bytes / notice.group_bytes == notice.bytes / notice.trailer_bytes;
  if (!kind || uuid == 0 || uuid == sizeof(notice.device_uuid) || !groups ||
      notice.granularity_bytes == 0) {
    return DataLoss(
        "malformed notice of an extent of a device: bytes={} rows_bytes={} group_bytes={} "
        "trailer_bytes={} granularity_bytes={} kind={} device_kind={} uuid_bytes={}",
        notice.bytes, notice.rows_bytes, notice.group_bytes, notice.trailer_bytes,
        notice.granularity_bytes, notice.extent_kind, notice.device_kind, uuid);
  }
  return notice;
}

absl::Status CheckDaemonHeader(const DaemonHeader& header, const Welcome& welcome) {
  const bool same =
      header.magic == kDaemonMagic && header.abi == welcome.abi &&
      header.header_bytes == kHeaderBytes && header.segment_bytes == welcome.d_bytes &&
      header.e_segment_bytes == welcome.e_bytes && header.session_id == welcome.session_id;
  const bool aligned = header.seq_off % alignof(SeqBoard) == 0 &&
                       header.arena_off % kArenaUnit == 0 &&
                       header.e_desk_off % alignof(SeqDesk) == 0;
  const bool fits = header.seq_off >= kHeaderBytes && header.e_desk_off >= sizeof(EngineHeader) &&
                    header.arena_off <= welcome.d_bytes &&
                    Fits(header.seq_off, header.seq_max, sizeof(SeqBoard), header.arena_off) &&
                    Fits(header.arena_off, header.arena_bytes, 1, welcome.d_bytes) &&
                    Fits(header.e_desk_off, header.seq_max, sizeof(SeqDesk), welcome.e_bytes);
  if (!same || !aligned || !fits) {
    return DataLoss("the daemon's segment header does not fit its welcome: session={}",
                    welcome.session_id);
  }
  if (header.layout_hash != LayoutHash()) {
    return FailedPrecondition(
        "client and daemon disagree about the shared-memory layout: client_hash={:016x} "
        "daemon_hash={:016x}",
        LayoutHash(), header.layout_hash);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::shm
