#include "daemon/offload/run_offload_job.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/copy_job.h"

namespace kvasir {
namespace {

using core::OffloadJob;

// Of one request: small enough that several are in flight and that a stop is soon seen.
constexpr uint64_t kRequestBytes = 32ULL << 20;

// Groups of one shape in one extent of the device, which lie there one behind the other.
struct Place {
  device::GroupLayout layout;
  std::vector<device::BlockPair> blocks;
};

absl::StatusOr<device::GroupLayout> LayoutIn(const Extent& extent,
                                             const shm::GroupGeometry& geometry) {
  const DeviceRows& rows = *extent.device_rows();
  std::vector<device::DevicePlane> planes;
  for (const uint64_t offset : geometry.k_off) {
    planes.push_back({extent.rows() + offset, rows.group_bytes,
                      static_cast<uint32_t>(extent.rows_bytes() / rows.group_bytes)});
  }
  return device::GroupLayout::Create(geometry, std::move(planes));
}

class Run {
 public:
  Run(OffloadJob& job, DeviceMemory& memory, device::OffloadEngine& engine,
      const std::atomic<bool>& stopping)
      : job_(job), memory_(memory), engine_(engine), stopping_(stopping) {}

  absl::Status Rows() {
    for (const OffloadJob::Piece& piece : job_.pieces) KVASIR_RETURN_IF_ERROR(Add(piece));
    const absl::Status submitted = SubmitAll();
    // Whatever went wrong: what is issued ends before the buffers may.
    while (out_ > 0) {
      if (absl::Status waited = engine_.WaitForOne(); !waited.ok()) ended_.Update(waited);
      Collect();
    }
    KVASIR_RETURN_IF_ERROR(submitted);
    return ended_;
  }

 private:
  bool to_host() const { return job_.direction == device::CopyDirection::kToHost; }

  absl::Status Add(const OffloadJob::Piece& piece) {
    if (stopping_) return MakeError(absl::StatusCode::kCancelled, "the daemon ends");
    Extent* const host = piece.host.extent;
    auto [range, is_new] = ranges_.try_emplace(host, Range{ranges_.size(), true});
    if (is_new) {
      const absl::Status registered = host->RegisterWith(memory_.device());
      if (!registered.ok()) {
        spdlog::warn(
            "host memory is not pinned, and copied twice: pool={} extent_bytes={} reason={}",
            memory_.name(), host->bytes(), MessageOf(registered));
        range->second.pinned = false;
      }
    }
    if (!range->second.pinned) return CopyByStaging(piece);
    Extent* const extent = piece.device.extent;
    auto place = places_.find({extent, piece.geometry});
    if (place == places_.end()) {
      KVASIR_ASSIGN_OR_RETURN(device::GroupLayout layout, LayoutIn(*extent, *piece.geometry));
      place =
          places_.emplace(std::pair(extent, piece.geometry), Place{std::move(layout), {}}).first;
    }
    place->second.blocks.push_back(
        {piece.host.data(),
         static_cast<uint32_t>(piece.device.offset / extent->device_rows()->group_bytes),
         static_cast<uint32_t>(range->second.number)});
    return absl::OkStatus();
  }

  absl::Status CopyByStaging(const OffloadJob::Piece& piece) {
    const std::span<std::byte> host(piece.host.data(), core::PlaneBytes(*piece.geometry));
    return to_host() ? memory_.Read(piece.device.data(), host)
                     : memory_.Write(host, piece.device.data());
  }

  absl::Status SubmitAll() {
    for (auto& [key, place] : places_) {
      const uint64_t at_once = std::max<uint64_t>(1, kRequestBytes / place.layout.bytes());
      for (uint64_t first = 0; first < place.blocks.size(); first += at_once) {
        if (stopping_) return MakeError(absl::StatusCode::kCancelled, "the daemon ends");
        const uint64_t last = std::min<uint64_t>(first + at_once, place.blocks.size());
        KVASIR_RETURN_IF_ERROR(
            Submit(place.layout, std::span(place.blocks).subspan(first, last - first)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Submit(const device::GroupLayout& layout,
                      std::span<const device::BlockPair> blocks) {
    device::OffloadRequest request;
    request.direction = job_.direction;
    request.order = device::StepOrder::kByGroup;
    request.blocks.assign(blocks.begin(), blocks.end());
    for (;;) {
      const absl::StatusOr<uint64_t> id = engine_.Submit(layout, request);
      if (id.ok()) {
        ++out_;
        Collect();
        return ended_;  // no more after one that failed
      }
      if (id.status().code() != absl::StatusCode::kResourceExhausted) return id.status();
      KVASIR_RETURN_IF_ERROR(engine_.WaitForOne());
      Collect();
    }
  }

  void Collect() {
    for (const device::OffloadResult& result : engine_.Poll()) {
      --out_;
      ended_.Update(result.status);
    }
  }

  struct Range {
    uint64_t number = 0;
    bool pinned = true;
  };

  OffloadJob& job_;
  DeviceMemory& memory_;
  device::OffloadEngine& engine_;
  const std::atomic<bool>& stopping_;
  std::map<Extent*, Range> ranges_;  // of host memory
  std::map<std::pair<Extent*, const shm::GroupGeometry*>, Place> places_;
  uint64_t out_ = 0;    // requests that have not ended
  absl::Status ended_;  // the first that failed
};

// Both lie in host memory, whatever the direction.
void CopyTrailer(const OffloadJob::Piece& piece, bool to_host) {
  const uint64_t off = core::PlaneBytes(*piece.geometry);
  const Group& from = to_host ? piece.device : piece.host;
  const Group& to = to_host ? piece.host : piece.device;
  std::memcpy(to.trailer(off), from.trailer(off), piece.geometry->bytes - off);
}

}  // namespace

void RunOffloadJob(core::OffloadJob& job, DeviceMemory& memory, device::OffloadEngine& engine,
                   const std::atomic<bool>& stopping) {
  job.status = Run(job, memory, engine, stopping).Rows();
  if (!job.status.ok()) return;
  for (const OffloadJob::Piece& piece : job.pieces) {
    if (piece.filled != nullptr) {
      core::WriteTrailer(*piece.filled);
    } else {
      CopyTrailer(piece, job.direction == device::CopyDirection::kToHost);
    }
  }
}

}  // namespace kvasir
