#include "tests/sim/engine.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "proto/shm/probe_pattern.h"

namespace kvasir::sim {

core::ModelDescription ModelOf(uint32_t model) {
  core::ModelDescription description;
  description.name = model == 0 ? "one" : "two";
  description.layers.assign(model + 1, core::LayerShape{1, kDims, kDims, 0, 2});
  description.separators = {1, 2};
  description.vocabulary_size = kVocabulary;
  description.slots_per_block = kSlots;
  description.weights_digest = std::string(16, static_cast<char>('a' + model));
  return description;
}

Engine::Buffer Engine::MakeBuffer(uint64_t bytes) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, RoundUp(bytes, kPageBytes)));
  std::memset(data, 0, bytes);
  return Buffer(data);
}

Engine::Engine(core::KvCore& core, const core::SessionLimits& limits, const Place& place,
               uint64_t token, ExtentBooks& books, Findings& findings)
    : core_(core),
      limits_(limits),
      place_(place),
      sizes_(SegmentSizesFor(limits)),
      books_(books),
      findings_(findings),
      d_(MakeBuffer(sizes_.d_bytes)),
      e_(MakeBuffer(sizes_.e_bytes)) {
  core::SessionToken of_session;
  std::memcpy(of_session.bytes.data(), &token, sizeof(token));
  const uint32_t uid = place.tenant + 1;
  const absl::StatusOr<core::Session*> session = core.OpenSession(
      {uid, uid, 1, "", place.overrides}, of_session, 7, {d_.get(), e_.get()}, *this);
  if (!session.ok()) return;
  session_ = *session;
  session_id_ = session_->id;
}

absl::Status Engine::SendExtent(const shm::ExtentNotice& notice, const Extent& extent) {
  if (refuses_extents) return DeadlineExceeded("the engine does not read");
  if (notice.slot >= given_.size()) given_.resize(notice.slot + 1);
  Given& given = given_[notice.slot];
  if (notice.generation <= given.generation) {
    findings_.Add("a slot is used again in an old generation: slot={} generation={} before={}",
                  notice.slot, notice.generation, given.generation);
  }
  if (notice.extent_id != extent.id() || notice.bytes != extent.bytes()) {
    findings_.Add("a notice is not of its extent: id={} of_extent={}", notice.extent_id,
                  extent.id());
  }
  given = {extent.id(), extent.bytes(), notice.generation, extent.use() == ExtentUse::kRecent,
           extent.data()};
  books_.Sent(extent, place_.tenant, session_id_);
  if (!holds) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(UniqueFd fd, extent.OpenForPeer());
  held.push_back(std::move(fd));
  return absl::OkStatus();
}

absl::Status Engine::Register(uint32_t model, bool wrong_layout) {
  constexpr uint64_t kSeed = 9, kAnswer = 10;
  KVASIR_ASSIGN_OR_RETURN(const core::ModelHandle handle,
                          core_.RegisterModel(*session_, ModelOf(model)));
  const std::vector<shm::LayerRowBytes>& bytes = handle.model->row_bytes();
  const shm::GroupGeometry block = shm::MakeGroupGeometry(bytes, kSlots);
  std::byte* const base = At(handle.probe_extent.slot, handle.probe_extent.generation,
                             handle.probe_offset, block.bytes, /*recent=*/true);
  if (base == nullptr) return Internal("no memory for the probe");
  for (uint32_t layer = 0; layer < bytes.size(); ++layer) {
    for (uint32_t slot = 0; slot < kSlots / 2; ++slot) {
      for (uint32_t b = 0; b < kRowBytes; ++b) {
        base[block.k_off[layer] + slot * kRowBytes + b] =
            std::byte{shm::ProbeByte(kSeed, layer, 0, slot, b)};
        base[block.v_off[layer] + slot * kRowBytes + b] =
            std::byte{shm::ProbeByte(kSeed, layer, 1, slot, b)};
      }
    }
  }
  if (wrong_layout) base[block.v_off[0]] ^= std::byte{1};
  KVASIR_RETURN_IF_ERROR(core_.ProbeLayout(*session_, handle.model_id, kSeed, kAnswer));
  if (base[block.k_off[0] + kSlots / 2 * kRowBytes] !=
      std::byte{shm::ProbeByte(kAnswer, 0, 0, kSlots / 2, 0)}) {
    findings_.Add("the daemon's pattern is not where it should be: session={}", session_id_);
  }
  model_ids[model] = handle.model_id;
  return absl::OkStatus();
}

Stream& Engine::Take(const core::Sequence& sequence, uint32_t model, const Retention& retention,
                     Text text) {
  auto stream = std::make_unique<Stream>();
  stream->slot = sequence.identity().slot;
  stream->uid = sequence.identity().uid;
  stream->id = sequence.identity().id;
  stream->model = model;
  stream->retention = &retention;
  stream->text = std::move(text);
  stream->text.Cut(sequence.rows());
  for (const core::LaneReport& report : sequence.Reports()) {
    Stream::Lane& lane = stream->lanes.emplace_back();
    lane.layers = report.lane->layers;
    lane.recent = report.lane->recent_block;
    lane.block = report.lane->kept_shapes->block;
    lane.small = report.lane->kept_shapes->small;
    lane.records = report.lane->records;
    lane.report_geometry = report.lane->report_geometry;
    if (!report.lane->report) continue;
    lane.report = At(report.extent.slot, report.extent.generation, report.lane->report.offset,
                     lane.report_geometry.bytes, /*recent=*/true);
  }
  FillReports(*stream, 0.5F);
  stream->opening = sequence.resuming();
  streams.push_back(std::move(stream));
  return *streams.back();
}

void Engine::FillReports(const Stream& stream, float value) {
  for (const Stream::Lane& lane : stream.lanes) {
    if (lane.report == nullptr) continue;
    for (uint64_t at = 0; at < lane.report_geometry.bytes; at += 4) {
      std::memcpy(lane.report + at, &value, 4);
    }
  }
}

bool Engine::IsTakenBack(const Stream& stream) const {
  const auto& board =
      reinterpret_cast<const shm::SeqBoard*>(d_.get() + sizes_.seq_off)[stream.slot];
  return board.uid.load() != stream.uid;
}

bool Engine::Opening(Stream& stream) {
  if (!stream.opening) return false;
  const core::Sequence* const sequence = core_.OpenedSequence(*session_, stream.id);
  stream.opening = sequence != nullptr && sequence->resuming();
  return stream.opening;
}

shm::SeqDesk& Engine::desk(uint32_t slot) {
  return reinterpret_cast<shm::SeqDesk*>(e_.get() + sizes_.e_desk_off)[slot];
}

void Engine::WriteDesk(const Stream& stream, uint64_t rows, uint64_t adopted) {
  desk(stream.slot).rows.store(rows);
  desk(stream.slot).adopted.store(adopted);
  desk(stream.slot).uid.store(stream.uid);
}

std::byte* Engine::At(uint32_t slot, uint32_t generation, uint64_t offset, uint64_t bytes,
                      bool recent) {
  if (slot >= given_.size() || given_[slot].data == nullptr) {
    findings_.Add("the daemon names an extent that was not sent: session={} slot={}", session_id_,
                  slot);
    return nullptr;
  }
  const Given& given = given_[slot];
  if (generation != given.generation) {
    findings_.Add("the daemon names another generation: session={} slot={} generation={} sent={}",
                  session_id_, slot, generation, given.generation);
    return nullptr;
  }
  if (offset + bytes > given.bytes || recent != given.recent) {
    findings_.Add("the daemon names a group that is none: session={} extent={} offset={} bytes={}",
                  session_id_, given.id, offset, bytes);
    return nullptr;
  }
  if (books_.IsGone(given.id)) {
    findings_.Add("the daemon names memory that was given back: session={} extent={} offset={}",
                  session_id_, given.id, offset);
    return nullptr;
  }
  return given.data + offset;
}

uint64_t Engine::Writable(Stream& stream, bool late) {
  const shm::SeqBoard& at = board(stream.slot);
  const uint64_t published = at.published.load();
  const shm::VersionDesc& newest = at.v[published & 1];
  const bool stays = late && stream.rows() < at.v[stream.adopted & 1].until_row;
  if (!stays) stream.adopted = stream.rows() >= newest.from_row ? published : published - 1;
  const uint64_t end = std::min(at.granted.load(), at.v[stream.adopted & 1].until_row);
  return end > stream.rows() ? end - stream.rows() : 0;
}

std::byte* Engine::RecentRow(const Stream& stream, uint64_t row, uint32_t lane) {
  const shm::SeqBoard& seq = board(stream.slot);
  const auto* dir = reinterpret_cast<const shm::RecentRef*>(d_.get() + seq.dir_off);
  const shm::RecentRef& ref = dir[lane * seq.dir_cap + row / kSlots % seq.dir_cap];
  return At(ref.extent, ref.generation, ref.group_off, stream.lanes[lane].recent.bytes,
            /*recent=*/true);
}

void Engine::WriteRow(Stream& stream, uint32_t token, float mass) {
  const uint64_t row = stream.rows(), slot = row % kSlots;
  stream.text.Add(token);
  const uint64_t key = RowKey(Writer(place_.tenant, stream.model), stream.text.chains.back(), row);
  for (uint32_t l = 0; l < stream.lanes.size(); ++l) {
    const Stream::Lane& lane = stream.lanes[l];
    std::byte* const base = RecentRow(stream, row, l);
    if (base == nullptr) return;
    for (size_t i = 0; i < lane.layers.size(); ++i) {
      const Row k = RowOf(key, lane.layers[i], 0), v = RowOf(key, lane.layers[i], 1);
      std::memcpy(base + lane.recent.k_off[i] + slot * kRowBytes, k.data(), kRowBytes);
      std::memcpy(base + lane.recent.v_off[i] + slot * kRowBytes, v.data(), kRowBytes);
    }
    if (l == 0) std::memcpy(base + lane.recent.tok_off + 4 * slot, &token, 4);
    for (uint32_t set = 0; set < lane.recent.trailer.mass_sets; ++set) {
      std::memcpy(base + lane.recent.mass_off + 4 * (set * uint64_t{kSlots} + slot), &mass, 4);
    }
  }
}

}  // namespace kvasir::sim
