#include "bench/gpu_copies.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mapped_region.h"
#include "base/status_macros.h"
#include "bench/statistics.h"
#include "device/offload/offload_engine.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using device::CopyDirection;
using device::CopyPiece;
using device::Device;
using device::DeviceExtent;
using device::DeviceStream;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kLayers = 32, kSlots = 16;
constexpr uint32_t kRowBytes = 8 * 128 * 2;  // 8 kv heads of 128, f16

double MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

const char* NameOf(CopyDirection direction) {
  return direction == CopyDirection::kToDevice ? "host to device" : "device to host";
}

// Host groups and the two forms of the device's memory: group-major as on the host, and a plane for
// each layer.
class CopyBench {
 public:
  CopyBench(Report& report, Device& device, const CopyBenchOptions& options)
      : report_(report), device_(device), options_(options) {}

  absl::Status Prepare();
  absl::Status MeasureCopies();
  absl::Status MeasureExtents();
  absl::Status MeasureRequests();

 private:
  absl::Status Time(const std::string& name, const std::function<absl::Status()>& work);
  absl::Status Whole(CopyDirection direction, uint64_t piece_bytes);
  absl::Status Contiguous(CopyDirection direction);
  absl::Status Transposed(CopyDirection direction, bool strided);
  absl::Status CheckArrived();
  double Median(const std::string& name) const { return MedianOf(times_us_.at(name)).median; }
  void AddCopyRow(const std::string& name, const std::string& timed, double best_us,
                  const std::string& goal);
  void AddTimeRow(const std::string& name, const std::string& timed);
  nlohmann::ordered_json Extra(const std::string& timed) const;

  Report& report_;
  Device& device_;
  const CopyBenchOptions options_;
  const shm::GroupGeometry geometry_ = shm::MakeGroupGeometry(
      std::vector<shm::LayerRowBytes>(kLayers, {kRowBytes, kRowBytes}), kSlots);
  const uint64_t group_bytes_ = geometry_.pos_off;  // without the trailer: it has no plane
  UniqueFd fd_;
  MappedRegion host_;
  std::unique_ptr<device::HostRegistration> registration_;
  std::unique_ptr<DeviceExtent> flat_, planes_;
  std::unique_ptr<device::GroupLayout> layout_;
  std::vector<device::BlockPair> blocks_;
  std::unique_ptr<DeviceStream> stream_;
  std::map<std::string, std::vector<double>> times_us_;
};

absl::Status CopyBench::Prepare() {
  const uint64_t bytes = geometry_.bytes * options_.groups;
  const uint64_t with_words = RoundUp(bytes, kPageBytes) + kPageBytes;
  fd_ = UniqueFd(::memfd_create("kvasir-bench", MFD_CLOEXEC));
  if (!fd_ || ::ftruncate(fd_.get(), static_cast<off_t>(with_words)) != 0) {
    return ErrnoStatus(errno, "memfd of the benchmark");
  }
  KVASIR_ASSIGN_OR_RETURN(host_, MappedRegion::Map(fd_, with_words, Access::kReadWrite));
  std::memset(host_.data(), 1, bytes);
  KVASIR_ASSIGN_OR_RETURN(registration_, device_.RegisterHost(host_.data(), with_words, false));
  KVASIR_ASSIGN_OR_RETURN(flat_, device_.CreateExtent(bytes, 1));
  KVASIR_ASSIGN_OR_RETURN(planes_, device_.CreateExtent(group_bytes_ * options_.groups, 2));
  KVASIR_ASSIGN_OR_RETURN(stream_, device_.MakeStream(device::StreamPriority::kLowest));
  std::vector<device::DevicePlane> planes;
  const uint64_t part = group_bytes_ / kLayers;
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    planes.push_back({planes_->address() + layer * part * options_.groups, part, options_.groups});
  }
  KVASIR_ASSIGN_OR_RETURN(device::GroupLayout layout,
                          device::GroupLayout::Create(geometry_, std::move(planes)));
  layout_ = std::make_unique<device::GroupLayout>(std::move(layout));
  for (uint32_t i = 0; i < options_.groups; ++i) {
    blocks_.push_back({host_.data() + i * geometry_.bytes, i});
  }
  return absl::OkStatus();
}

absl::Status CopyBench::Time(const std::string& name, const std::function<absl::Status()>& work) {
  const auto start = Clock::now();
  KVASIR_RETURN_IF_ERROR(work());
  times_us_[name].push_back(MicrosecondsSince(start));
  return absl::OkStatus();
}

// The same bytes in pieces of one size, in order: what a plain copy can do.
absl::Status CopyBench::Whole(CopyDirection direction, uint64_t piece_bytes) {
  const uint64_t all = group_bytes_ * options_.groups;
  for (uint64_t at = 0; at < all; at += piece_bytes) {
    CopyPiece piece{flat_->address() + at, host_.data() + at, std::min(piece_bytes, all - at)};
    if (direction == CopyDirection::kToHost) {
      piece = {host_.data() + at, flat_->address() + at, piece.bytes};
    }
    KVASIR_RETURN_IF_ERROR(stream_->Copy({&piece, 1}));
  }
  return stream_->Synchronize();
}

// Groups in an order that is neither side's, one batch.
absl::Status CopyBench::Contiguous(CopyDirection direction) {
  std::vector<CopyPiece> pieces;
  for (uint32_t i = 0; i < options_.groups; ++i) {
    std::byte* const host = blocks_[(i * 7 + 3) % options_.groups].host_group;
    std::byte* const device = flat_->address() + i * geometry_.bytes;
    pieces.push_back(direction == CopyDirection::kToDevice ? CopyPiece{device, host, group_bytes_}
                                                           : CopyPiece{host, device, group_bytes_});
  }
  KVASIR_RETURN_IF_ERROR(stream_->Copy(pieces));
  return stream_->Synchronize();
}

absl::Status CopyBench::Transposed(CopyDirection direction, bool strided) {
  if (strided) {
    for (uint32_t part = 0; part < kLayers; ++part) {
      KVASIR_RETURN_IF_ERROR(
          stream_->CopyStrided(layout_->CopiesOfPart(part, blocks_, direction).strided));
    }
  } else {
    for (const device::BlockPair& block : blocks_) {
      KVASIR_RETURN_IF_ERROR(stream_->Copy(layout_->CopiesOfGroup(block, direction).pieces));
    }
  }
  return stream_->Synchronize();
}

absl::Status CopyBench::CheckArrived() {
  for (uint32_t i = 0; i < options_.groups; ++i) {
    std::memset(blocks_[i].host_group, static_cast<int>(i % 251 + 1), group_bytes_);
  }
  KVASIR_RETURN_IF_ERROR(Transposed(CopyDirection::kToDevice, true));
  std::memset(host_.data(), 0, geometry_.bytes * options_.groups);
  KVASIR_RETURN_IF_ERROR(Transposed(CopyDirection::kToHost, false));
  for (uint32_t i = 0; i < options_.groups; ++i) {
    const auto expected = static_cast<std::byte>(i % 251 + 1);
    const std::byte* const group = blocks_[i].host_group;
    if (std::any_of(group, group + group_bytes_, [=](std::byte b) { return b != expected; })) {
      return FailedPrecondition("a transposed group came back with other bytes: group={}", i);
    }
  }
  return absl::OkStatus();
}

nlohmann::ordered_json CopyBench::Extra(const std::string& timed) const {
  const MedianInterval interval = MedianOf(times_us_.at(timed));
  const device::DeviceFacts& facts = device_.facts();
  return {{"device", facts.name},
          {"memory", facts.kind == device::DeviceKind::kHost ? "host, no GPU" : "GPU"},
          {"low_us", interval.low},
          {"high_us", interval.high}};
}

void CopyBench::AddCopyRow(const std::string& name, const std::string& timed, double best_us,
                           const std::string& goal) {
  // bytes / us = MB/s
  const double gigabytes = static_cast<double>(group_bytes_ * options_.groups) / 1000.0;
  report_.Add({.name = name,
               .value = gigabytes / Median(timed),
               .unit = "GB/s",
               .reference = gigabytes / best_us,
               .better = Better::kHigher,
               .goal = goal,
               .extra = Extra(timed)});
}

void CopyBench::AddTimeRow(const std::string& name, const std::string& timed) {
  report_.Add({.name = name,
               .value = Median(timed),
               .unit = "us",
               .reference = std::nullopt,
               .better = Better::kLower,
               .goal = "",
               .extra = Extra(timed)});
}

absl::Status CopyBench::MeasureCopies() {
  KVASIR_RETURN_IF_ERROR(CheckArrived());
  const uint64_t sizes[] = {2 * kMiB, 16 * kMiB, group_bytes_ * options_.groups};
  for (const CopyDirection direction : {CopyDirection::kToDevice, CopyDirection::kToHost}) {
    const std::string way = NameOf(direction);
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (const uint64_t size : sizes) {
        KVASIR_RETURN_IF_ERROR(
            Time(fmt::format("{} {}", way, size), [&] { return Whole(direction, size); }));
      }
      KVASIR_RETURN_IF_ERROR(Time(way + " groups", [&] { return Contiguous(direction); }));
      KVASIR_RETURN_IF_ERROR(Time(way + " strided", [&] { return Transposed(direction, true); }));
      KVASIR_RETURN_IF_ERROR(Time(way + " pieces", [&] { return Transposed(direction, false); }));
    }
    std::string best = fmt::format("{} {}", way, sizes[0]);
    for (const uint64_t size : sizes) {
      const std::string name = fmt::format("{} {}", way, size);
      if (Median(name) < Median(best)) best = name;
    }
    const double best_us = Median(best);
    AddCopyRow(way + ", one plain copy, the best size", best, best_us, "");
    AddCopyRow(way + ", contiguous groups in a batch", way + " groups", best_us, "ratio >= 0.9");
    const bool strided = Median(way + " strided") < Median(way + " pieces");
    AddCopyRow(way + ", transposed, strided", way + " strided", best_us,
               strided ? "ratio >= 0.7" : "");
    AddCopyRow(way + ", transposed, a batch a group", way + " pieces", best_us,
               strided ? "" : "ratio >= 0.7");
  }
  return absl::OkStatus();
}

absl::Status CopyBench::MeasureExtents() {
  for (const uint64_t bytes : {2 * kMiB, 32 * kMiB}) {
    const std::string size = HumanBytes(bytes);
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      std::unique_ptr<DeviceExtent> made, imported;
      KVASIR_RETURN_IF_ERROR(Time("create " + size, [&]() -> absl::Status {
        KVASIR_ASSIGN_OR_RETURN(made, device_.CreateExtent(bytes, 3));
        return absl::OkStatus();
      }));
      KVASIR_ASSIGN_OR_RETURN(UniqueFd fd, made->ExportFd());
      KVASIR_RETURN_IF_ERROR(Time("map " + size, [&]() -> absl::Status {
        KVASIR_ASSIGN_OR_RETURN(imported,
                                device_.ImportExtent(std::move(fd), bytes, Access::kReadWrite));
        return absl::OkStatus();
      }));
      KVASIR_RETURN_IF_ERROR(Time("unmap " + size, [&] {
        imported.reset();
        return absl::OkStatus();
      }));
      KVASIR_RETURN_IF_ERROR(Time("destroy " + size, [&] {
        made.reset();
        return absl::OkStatus();
      }));
    }
    AddTimeRow("create, map and zero an extent of " + size, "create " + size);
    AddTimeRow("import and map an extent of " + size, "map " + size);
    AddTimeRow("unmap an extent of " + size, "unmap " + size);
    AddTimeRow("destroy an extent of " + size, "destroy " + size);
  }
  return absl::OkStatus();
}

absl::Status CopyBench::MeasureRequests() {
  KVASIR_ASSIGN_OR_RETURN(const auto engine, device::OffloadEngine::Create(device_, {}));
  KVASIR_ASSIGN_OR_RETURN(const auto first, device_.MakeEvent());
  KVASIR_ASSIGN_OR_RETURN(const auto last, device_.MakeEvent());
  auto& word = *reinterpret_cast<device::DeviceWord*>(host_.data() + host_.bytes() - kPageBytes);
  for (uint64_t round = 0; round < options_.rounds; ++round) {
    const uint64_t base = round * kLayers;
    // As an engine does it: its stream waits for a layer at a time, no processor in between.
    KVASIR_RETURN_IF_ERROR(stream_->WaitWord(word, base + 1));
    KVASIR_RETURN_IF_ERROR(stream_->Record(first));
    KVASIR_RETURN_IF_ERROR(stream_->WaitWord(word, base + kLayers));
    KVASIR_RETURN_IF_ERROR(stream_->Record(last));
    const auto start = Clock::now();
    const absl::StatusOr<uint64_t> id = engine->Submit(
        *layout_, {.blocks = {blocks_[round % options_.groups]}, .word = &word, .word_base = base});
    if (!id.ok()) {
      stream_->ReleaseWaits();
      return id.status();
    }
    KVASIR_RETURN_IF_ERROR(first->Synchronize());
    times_us_["first layer"].push_back(MicrosecondsSince(start));
    KVASIR_RETURN_IF_ERROR(last->Synchronize());
    times_us_["all layers"].push_back(MicrosecondsSince(start));
    for (std::vector<device::OffloadResult> ended; ended.empty(); ended = engine->Poll()) {
    }
  }
  AddTimeRow("from a request to its first layer, group of 2 MiB", "first layer");
  AddTimeRow("from a request to all layers, group of 2 MiB", "all layers");
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCopyRows(Report& report, Device& device, const CopyBenchOptions& options) {
  if (options.groups < 8 || options.groups % 7 == 0 || options.rounds == 0) {
    return InvalidArgument("groups is at least 8 and no multiple of 7: groups={} rounds={}",
                           options.groups, options.rounds);
  }
  CopyBench bench(report, device, options);
  KVASIR_RETURN_IF_ERROR(bench.Prepare());
  KVASIR_RETURN_IF_ERROR(bench.MeasureCopies());
  KVASIR_RETURN_IF_ERROR(bench.MeasureExtents());
  return bench.MeasureRequests();
}

}  // namespace kvasir::bench
