// What comes over the data socket, both ways, and the header behind a welcome: any bytes are
// refused, or lie inside the segments that were said to be there.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "proto/shm/data_messages.h"
#include "proto/shm/layout_hash.h"

namespace {

using namespace kvasir::shm;

void Expect(bool holds) {
  if (!holds) std::abort();
}

// What the client reads of a header that passed, in numbers that cannot wrap.
void ExpectInside(const DaemonHeader& header, const Welcome& welcome) {
  using Wide = unsigned __int128;
  const Wide boards_end = Wide{header.seq_off} + Wide{sizeof(SeqBoard)} * header.seq_max;
  const Wide desks_end = Wide{header.e_desk_off} + Wide{sizeof(SeqDesk)} * header.seq_max;
  Expect(boards_end <= header.arena_off && desks_end <= welcome.e_bytes);
  Expect(Wide{header.arena_off} + header.arena_bytes <= welcome.d_bytes);
  Expect(header.seq_off % alignof(SeqBoard) == 0 && header.e_desk_off % alignof(SeqDesk) == 0);
}

}  // namespace

// The first byte says how many descriptors came, whether the message was cut, and whether a header
// gets the numbers of a welcome and of this layout; behind it the message, and behind a welcome the
// header.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  DataMessage message{bytes, (data[0] & 8U) != 0, data[0] & 7U};
  (void)CheckHello(message);
  const absl::StatusOr<ExtentNotice> notice = ParseExtentNotice(message);
  if (notice.ok()) Expect(message.fds == 1 && notice->bytes > 0);
  const absl::StatusOr<DeviceExtentNotice> pair = ParseDeviceExtentNotice(message);
  if (pair.ok()) {
    Expect(IsDeviceExtentNotice(message) && message.fds == 2 && pair->bytes > 0);
    const unsigned __int128 groups = pair->rows_bytes / pair->group_bytes;
    Expect(groups * pair->trailer_bytes == pair->bytes);
    Expect(std::memchr(pair->device_uuid, 0, sizeof(pair->device_uuid)) != nullptr);
  }
  const absl::StatusOr<Welcome> refused = ParseAnswer(message);
  if (refused.ok()) Expect(message.fds == 3);
  message.bytes = bytes.first(std::min(bytes.size(), sizeof(Welcome)));
  const absl::StatusOr<Welcome> welcome = ParseAnswer(message);
  if (!welcome.ok()) return 0;
  const auto behind = bytes.subspan(message.bytes.size());
  alignas(64) std::byte memory[sizeof(DaemonHeader)] = {};
  std::memcpy(memory, behind.data(), std::min(behind.size(), sizeof(memory)));
  auto& header = *reinterpret_cast<DaemonHeader*>(memory);
  if ((data[0] & 16U) != 0) {
    header.magic = kDaemonMagic;
    header.abi = welcome->abi;
    header.header_bytes = kHeaderBytes;
    header.segment_bytes = welcome->d_bytes;
    header.e_segment_bytes = welcome->e_bytes;
    header.session_id = welcome->session_id;
    header.layout_hash = LayoutHash();
  }
  if (CheckDaemonHeader(header, *welcome).ok()) ExpectInside(header, *welcome);
  return 0;
}
