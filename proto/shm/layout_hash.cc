#include "proto/shm/layout_hash.h"

#include <cstddef>

#include "proto/shm/command_ring_layout.h"
#include "proto/shm/layout.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kvasir::shm {

#define KVASIR_FIELD_(Struct, field) \
  text += fmt::format(#Struct "." #field " {} {}\n", offsetof(Struct, field), sizeof(Struct::field))

std::string LayoutText() {
  std::string text = fmt::format("abi {}\n", kAbiVersion);
  KVASIR_FIELD_(DaemonHeader, magic);
  KVASIR_FIELD_(DaemonHeader, abi);
  KVASIR_FIELD_(DaemonHeader, header_bytes);
  KVASIR_FIELD_(DaemonHeader, segment_bytes);
  KVASIR_FIELD_(DaemonHeader, boot_epoch);
  KVASIR_FIELD_(DaemonHeader, layout_hash);
  KVASIR_FIELD_(DaemonHeader, session_id);
  KVASIR_FIELD_(DaemonHeader, seq_max);
  KVASIR_FIELD_(DaemonHeader, seq_off);
  KVASIR_FIELD_(DaemonHeader, arena_off);
  KVASIR_FIELD_(DaemonHeader, arena_bytes);
  KVASIR_FIELD_(DaemonHeader, e_desk_off);
  KVASIR_FIELD_(DaemonHeader, e_segment_bytes);
  KVASIR_FIELD_(DaemonHeader, session_state);
  KVASIR_FIELD_(DaemonHeader, end_reason);
  KVASIR_FIELD_(DaemonHeader, wanted_back);
  KVASIR_FIELD_(VersionDesc, version);
  KVASIR_FIELD_(VersionDesc, from_row);
  KVASIR_FIELD_(VersionDesc, until_row);
  KVASIR_FIELD_(VersionDesc, lanes_off);
  KVASIR_FIELD_(VersionDesc, lanes);
  KVASIR_FIELD_(VersionDesc, flags);
  KVASIR_FIELD_(SeqBoard, published);
  KVASIR_FIELD_(SeqBoard, granted);
  KVASIR_FIELD_(SeqBoard, uid);
  KVASIR_FIELD_(SeqBoard, state);
  KVASIR_FIELD_(SeqBoard, slots_per_block);
  KVASIR_FIELD_(SeqBoard, lanes);
  KVASIR_FIELD_(SeqBoard, dir_off);
  KVASIR_FIELD_(SeqBoard, dir_cap);
  KVASIR_FIELD_(SeqBoard, low_water);
  KVASIR_FIELD_(SeqBoard, consumed);
  KVASIR_FIELD_(SeqBoard, suspend_wanted);
  KVASIR_FIELD_(SeqBoard, v);
  KVASIR_FIELD_(SeqDesk, rows);
  KVASIR_FIELD_(SeqDesk, adopted);
  KVASIR_FIELD_(SeqDesk, uid);
  KVASIR_FIELD_(LaneSpan, runs_off);
  KVASIR_FIELD_(LaneSpan, sticky_off);
  KVASIR_FIELD_(LaneSpan, runs);
  KVASIR_FIELD_(LaneSpan, sticky);
  KVASIR_FIELD_(LaneSpan, kept_rows);
  KVASIR_FIELD_(LaneSpan, window);
  KVASIR_FIELD_(LaneSpan, recent_first);
  KVASIR_FIELD_(LaneSpan, records_from);
  KVASIR_FIELD_(RunEntry, extent);
  KVASIR_FIELD_(RunEntry, generation);
  KVASIR_FIELD_(RunEntry, group_off);
  KVASIR_FIELD_(RunEntry, group_slots);
  KVASIR_FIELD_(RunEntry, first_slot);
  KVASIR_FIELD_(RunEntry, rows);
  KVASIR_FIELD_(RunEntry, encoding);
  KVASIR_FIELD_(RunEntry, flags);
  KVASIR_FIELD_(RunEntry, query_offset);
  KVASIR_FIELD_(RunEntry, query_max);
  KVASIR_FIELD_(RunEntry, first_row);
  KVASIR_FIELD_(RecentRef, extent);
  KVASIR_FIELD_(RecentRef, generation);
  KVASIR_FIELD_(RecentRef, group_off);
  KVASIR_FIELD_(Hello, abi_min);
  KVASIR_FIELD_(Hello, abi_max);
  KVASIR_FIELD_(Welcome, boot_epoch);
  KVASIR_FIELD_(Welcome, d_bytes);
  KVASIR_FIELD_(Welcome, e_bytes);
  KVASIR_FIELD_(Welcome, token);
  KVASIR_FIELD_(Welcome, session_id);
  KVASIR_FIELD_(Refusal, code);
  KVASIR_FIELD_(Refusal, abi_min);
  KVASIR_FIELD_(Refusal, abi_max);
  KVASIR_FIELD_(Refusal, text);
  KVASIR_FIELD_(ExtentNotice, extent_kind);
  KVASIR_FIELD_(ExtentNotice, slot);
  KVASIR_FIELD_(ExtentNotice, generation);
  KVASIR_FIELD_(ExtentNotice, bytes);
  KVASIR_FIELD_(ExtentNotice, extent_id);
  KVASIR_FIELD_(DeviceExtentNotice, extent_kind);
  KVASIR_FIELD_(DeviceExtentNotice, slot);
  KVASIR_FIELD_(DeviceExtentNotice, generation);
  KVASIR_FIELD_(DeviceExtentNotice, bytes);
  KVASIR_FIELD_(DeviceExtentNotice, extent_id);
  KVASIR_FIELD_(DeviceExtentNotice, rows_bytes);
  KVASIR_FIELD_(DeviceExtentNotice, granularity_bytes);
  KVASIR_FIELD_(DeviceExtentNotice, group_bytes);
  KVASIR_FIELD_(DeviceExtentNotice, trailer_bytes);
  KVASIR_FIELD_(DeviceExtentNotice, device_kind);
  KVASIR_FIELD_(DeviceExtentNotice, device_uuid);
  text += CommandRingLayoutText();
  return text;
}

#undef KVASIR_FIELD_

uint64_t LayoutHash() {
  const std::string text = LayoutText();
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace kvasir::shm
