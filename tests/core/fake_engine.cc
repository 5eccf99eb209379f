#include "tests/core/fake_engine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/encoding/record.h"
#include "kernels/row_convert.h"
#include "proto/shm/probe_pattern.h"

namespace kvasir::core::testing {
namespace {

constexpr uint32_t kElements = 8;

uint16_t Element(uint64_t row, uint32_t layer, uint32_t plane, uint32_t e) {
  return static_cast<uint16_t>((row * 131 + layer * 17 + plane * 5 + e) %
                               0x3C00);  // below 1 in f16
}

uint32_t LoadWord(const std::byte* at) {
  uint32_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

void ExpectRow(const std::byte* data, uint64_t row, uint32_t layer, uint32_t plane) {
  for (uint32_t e = 0; e < kElements; ++e) {
    uint16_t value = 0;
    std::memcpy(&value, data + 2 * e, 2);
    EXPECT_EQ(value, Element(row, layer, plane, e)) << "row " << row << " layer " << layer;
  }
}

// Slots of one plane of a group of records (of one kv head) as float rows.
std::vector<float> Decoded(const kernels::RecordShape& shape, const std::byte* record) {
  std::vector<float> rows(size_t{shape.rows} * shape.dims);
  EXPECT_TRUE(kernels::CheckRecord(shape, record).ok());
  kernels::DecodeRecord(shape, record, rows.data());
  return rows;
}

void ExpectEncodedRow(const float* data, uint64_t row, uint32_t layer, uint32_t plane) {
  constexpr float kTolerance = 0.003F;  // of 8 bits between 0 and 1
  for (uint32_t e = 0; e < kElements; ++e) {
    EXPECT_NEAR(data[e], kernels::F16ToFloat(Element(row, layer, plane, e)), kTolerance)
        << "row " << row << " layer " << layer;
  }
}

}  // namespace

uint64_t TestSeed(uint64_t fallback) {
  const char* text = std::getenv("KVASIR_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  fmt::print("KVASIR_SEED={}\n", seed);
  return seed;
}

std::unique_ptr<HostPool> MakeTestPool(uint64_t bytes) {
  HostPoolOptions options;
  options.pool_bytes = bytes;
  options.extent_bytes = 64 * kKiB;
  options.small_extent_bytes = 32 * kKiB;
  options.lock = Demand::kOff;
  absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
  EXPECT_TRUE(pool.ok()) << MessageOf(pool.status());
  return pool.ok() ? *std::move(pool) : nullptr;
}

ModelDescription SmallModel(uint32_t layers) {
  ModelDescription model;
  model.name = "small";
  model.layers.assign(layers, LayerShape{1, kElements, kElements, 0, 2});
  model.separators = {1, 2};
  model.vocabulary_size = 100;
  model.slots_per_block = 16;
  model.weights_digest = std::string(16, 'd');
  return model;
}

FakeEngine::Buffer FakeEngine::MakeBuffer(uint64_t bytes) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes));
  std::memset(data, 0, bytes);
  return Buffer(data);
}

FakeEngine::FakeEngine(KvCore& core, const SessionLimits& limits, uint32_t uid, bool overrides)
    : core_(core),
      sizes_(SegmentSizesFor(limits)),
      d_(MakeBuffer(sizes_.d_bytes)),
      e_(MakeBuffer(sizes_.e_bytes)) {
  static uint64_t tokens_made = 0;
  SessionToken token;
  ++tokens_made;
  std::memcpy(token.bytes.data(), &tokens_made, sizeof(tokens_made));
  absl::StatusOr<Session*> session =
      core.OpenSession({uid, uid, 1, "", overrides}, token, 7, {d_.get(), e_.get()}, *this);
  EXPECT_TRUE(session.ok()) << MessageOf(session.status());
  session_ = *session;
  session_id_ = session_->id;
}

absl::Status FakeEngine::SendExtent(const shm::ExtentNotice& notice, const Extent& extent) {
  if (refuse_extents) return DeadlineExceeded("the engine does not read");
  extents_.resize(std::max<size_t>(extents_.size(), notice.slot + 1));
  extents_[notice.slot] = extent.data();
  pairs_.erase(notice.slot);
  if (extent.device_rows() != nullptr) pairs_[notice.slot] = extent.device_rows();
  newest_generation = std::max(newest_generation, notice.generation);
  if (holds == nullptr) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(UniqueFd fd, extent.OpenForPeer());
  holds->push_back(std::move(fd));
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> FakeEngine::RegisterModel(const ModelDescription& model,
                                                   const std::string& pool) {
  KVASIR_ASSIGN_OR_RETURN(const ModelHandle handle, core_.RegisterModel(*session_, model, pool));
  const std::vector<shm::LayerRowBytes>& bytes = handle.model->row_bytes();
  const uint32_t layers = layers_ = handle.model->layers();
  const shm::GroupGeometry block = shm::MakeGroupGeometry(bytes, handle.model->slots_per_block());
  std::byte* const base = GroupAt(handle.probe_extent.slot, handle.probe_offset, block);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (uint32_t slot = 0; slot < block.slots / 2; ++slot) {
      for (uint32_t b = 0; b < bytes[layer].k; ++b) {
        base[block.k_off[layer] + slot * bytes[layer].k + b] =
            std::byte{shm::ProbeByte(9, layer, 0, slot, b)};
        base[block.v_off[layer] + slot * bytes[layer].v + b] =
            std::byte{shm::ProbeByte(9, layer, 1, slot, b)};
      }
    }
  }
  PutGroup(handle.probe_extent.slot, handle.probe_offset, block);
  KVASIR_RETURN_IF_ERROR(core_.ProbeLayout(*session_, handle.model_id, 9, 10));
  return handle.model_id;
}

FakeEngine::Stream FakeEngine::StreamOf(const Sequence& sequence) {
  Stream stream;
  stream.slot = sequence.identity().slot;
  stream.uid = sequence.identity().uid;
  stream.id = sequence.identity().id;
  const LaneReport report = sequence.Reports().front();
  stream.recent = report.lane->recent_block;
  stream.block = report.lane->kept_shapes->block;
  stream.small = report.lane->kept_shapes->small;
  stream.records = report.lane->records;
  stream.report_geometry = report.lane->report_geometry;
  if (report.lane->report) {
    stream.report = extents_[report.extent.slot] + report.lane->report.offset;
    FillReports(stream, 0.5F);
  }
  return stream;
}

void FakeEngine::FillReports(const Stream& stream, float value) {
  for (uint64_t at = 0; stream.report != nullptr && at < stream.report_geometry.bytes; at += 4) {
    std::memcpy(stream.report + at, &value, 4);
  }
}

shm::SeqBoard* FakeEngine::boards() {
  return reinterpret_cast<shm::SeqBoard*>(d_.get() + sizes_.seq_off);
}

shm::SeqDesk& FakeEngine::desk(uint32_t slot) {
  return reinterpret_cast<shm::SeqDesk*>(e_.get() + sizes_.e_desk_off)[slot];
}

uint64_t FakeEngine::Writable(Stream& stream, bool late) {
  const uint64_t published = board(stream.slot).published.load();
  const shm::VersionDesc& newest = board(stream.slot).v[published & 1];
  const bool stays = late && stream.rows < Table(stream).until_row;
  if (!stays) stream.adopted = stream.rows >= newest.from_row ? published : published - 1;
  const uint64_t end = std::min(board(stream.slot).granted.load(), Table(stream).until_row);
  return end > stream.rows ? end - stream.rows : 0;
}

uint16_t FakeEngine::PrefixDigest(const Stream& stream, uint32_t id) const {
  uint64_t digest = 1469598103934665603U ^ weights;
  const auto add = [&](uint32_t token) { digest = (digest ^ token) * 1099511628211U; };
  for (uint64_t row = 0; row < stream.rows; ++row) add(stream.ids[row]);
  add(id);
  return static_cast<uint16_t>((digest >> 32) & 0x3ff);  // stays finite in f16
}

void FakeEngine::WriteRow(Stream& stream, uint32_t id, float mass) {
  const shm::GroupGeometry& block = stream.recent;
  const uint64_t slot = stream.rows % 16;
  std::byte* const base = BlockOf(stream, 0, stream.rows);
  const uint16_t of_prefix = rows_by_prefix ? PrefixDigest(stream, id) : 0;
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    const std::string given = rows_from ? rows_from(stream.rows, layer, 0) : "";
    if (!given.empty()) {
      const std::string v = rows_from(stream.rows, layer, 1);
      std::memcpy(base + block.k_off[layer] + slot * block.row_bytes[layer].k, given.data(),
                  given.size());
      std::memcpy(base + block.v_off[layer] + slot * block.row_bytes[layer].v, v.data(), v.size());
      continue;
    }
    for (uint32_t e = 0; e < kElements; ++e) {
      const auto k = static_cast<uint16_t>(Element(stream.rows, layer, 0, e) + of_prefix);
      const auto v = static_cast<uint16_t>(Element(stream.rows, layer, 1, e) + of_prefix);
      std::memcpy(base + block.k_off[layer] + slot * block.row_bytes[layer].k + 2 * e, &k, 2);
      std::memcpy(base + block.v_off[layer] + slot * block.row_bytes[layer].v + 2 * e, &v, 2);
    }
  }
  std::memcpy(base + block.tok_off + 4 * slot, &id, 4);
  for (uint32_t set = 0; set < block.trailer.mass_sets; ++set) {
    std::memcpy(base + block.mass_off + 4 * (set * uint64_t{16} + slot), &mass, 4);
  }
  const shm::RecentRef& ref = RefOf(stream, 0, stream.rows);
  PutGroup(ref.extent, ref.group_off, block);
  stream.ids.resize(stream.rows);
  stream.ids.push_back(id);
  ++stream.rows;
}

void FakeEngine::SpoilKeys(const Stream& stream, uint64_t row, uint16_t bits) {
  std::byte* const base = BlockOf(stream, 0, row);
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    std::memcpy(base + stream.recent.k_off[layer] + row % 16 * stream.recent.row_bytes[layer].k,
                &bits, 2);
  }
}

void FakeEngine::ExpectBlock(const Stream& stream, uint32_t layer,
                             const Sequence::RetrievedBlock& block, uint64_t first, uint32_t rows) {
  const std::vector<shm::LayerRowBytes> bytes = {stream.recent.row_bytes[layer]};
  const shm::GroupGeometry slot = shm::MakeGroupGeometry(bytes, rows);
  const std::byte* const base = extents_[block.extent.slot] + block.offset;
  for (uint32_t i = 0; i < rows; ++i) {
    EXPECT_EQ(LoadWord(base + slot.pos_off + 4 * i), first + i);
    EXPECT_EQ(LoadWord(base + slot.tok_off + 4 * i), stream.ids[first + i]);
    ExpectRow(base + slot.k_off[0] + i * bytes[0].k, first + i, layer, 0);
    ExpectRow(base + slot.v_off[0] + i * bytes[0].v, first + i, layer, 1);
  }
}

void FakeEngine::WriteDesk(const Stream& stream) {
  desk(stream.slot).rows.store(stream.rows);
  desk(stream.slot).adopted.store(stream.adopted);
  desk(stream.slot).uid.store(stream.uid);
}

SyncAnswer FakeEngine::Sync(const Stream& stream, uint64_t granted_rows,
                            std::optional<uint64_t> table_row) {
  return core_.Sync(*session_, {stream.slot, stream.uid, granted_rows, table_row});
}

void FakeEngine::AddRecordRows(const Stream& stream, const shm::LaneSpan& span,
                               const shm::RunEntry& run, uint64_t query, uint32_t layer,
                               std::vector<uint64_t>& rows) {
  const LaneRecords& records = *stream.records;
  const std::byte* const base = extents_[run.extent] + run.group_off;
  const auto keys = Decoded(records.layers[layer].k, base + records.geometry.k_off[layer]);
  const auto values = Decoded(records.layers[layer].v, base + records.geometry.v_off[layer]);
  ++records_read;
  uint64_t low = span.records_from;
  if (span.window != 0 && query + 1 > span.window) low = std::max(low, query + 1 - span.window);
  for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
    const uint64_t kept = LoadWord(base + records.geometry.pos_off + 4 * s);
    EXPECT_LT(kept, span.recent_first);
    if (run.flags == shm::kRunWindowed) {
      EXPECT_EQ(kept, run.first_row + s);
      if (kept < low) continue;
    }
    ASSERT_LT(kept, stream.rows);
    EXPECT_EQ(LoadWord(base + records.geometry.tok_off + 4 * s), stream.ids[kept]);
    ExpectEncodedRow(keys.data() + size_t{s} * kElements, kept, layer, 0);
    ExpectEncodedRow(values.data() + size_t{s} * kElements, kept, layer, 1);
    rows.push_back(kept);
  }
}

std::vector<uint64_t> FakeEngine::VisibleRows(const Stream& stream, uint64_t row, uint32_t layer) {
  const shm::VersionDesc& table = Table(stream);
  EXPECT_EQ(table.version, stream.adopted);
  const auto& span = *reinterpret_cast<const shm::LaneSpan*>(d_.get() + table.lanes_off);
  const auto* runs = reinterpret_cast<const shm::RunEntry*>(d_.get() + span.runs_off);
  const auto* sticky = reinterpret_cast<const uint64_t*>(d_.get() + span.sticky_off);
  std::vector<uint64_t> rows;
  for (uint32_t r = 0; r < span.runs; ++r) {
    if (runs[r].encoding != 0) {
      AddRecordRows(stream, span, runs[r], row, layer, rows);
      continue;
    }
    const shm::GroupGeometry& geometry = runs[r].group_slots == 16 ? stream.block : stream.small;
    // A column for each layer (it has one head), or one for all.
    const uint32_t column = geometry.trailer.position_sets > 1 ? layer : 0;
    const std::byte* const base = GroupAt(runs[r].extent, runs[r].group_off, geometry);
    for (uint32_t s = runs[r].first_slot; s < runs[r].first_slot + runs[r].rows; ++s) {
      const uint64_t at = 4 * (uint64_t{column} * geometry.slots + s);
      const uint64_t kept = LoadWord(base + geometry.pos_off + at);
      EXPECT_LT(kept, span.recent_first);
      EXPECT_LT(kept, stream.rows);
      if (kept >= stream.rows) continue;
      EXPECT_EQ(LoadWord(base + geometry.tok_off + at), stream.ids[kept]) << "row " << kept;
      ExpectRow(base + geometry.k_off[layer] + s * geometry.row_bytes[layer].k, kept, layer, 0);
      ExpectRow(base + geometry.v_off[layer] + s * geometry.row_bytes[layer].v, kept, layer, 1);
      rows.push_back(kept);
    }
  }
  uint64_t windowed = 0;
  for (uint32_t r = 0; r < span.runs; ++r) windowed += runs[r].flags == 0 ? 0 : 1;
  if (windowed == 0) {
    EXPECT_EQ(rows.size(), span.kept_rows);
  }
  uint64_t low = span.recent_first;
  if (span.window != 0 && row + 1 > span.window) low = std::max(low, row + 1 - span.window);
  for (uint32_t i = 0; i < span.sticky; ++i) {
    if (sticky[i] < low && sticky[i] <= row) rows.push_back(sticky[i]);
  }
  for (uint64_t p = low; p <= row; ++p) rows.push_back(p);
  for (const uint64_t p : rows) {
    if (p < span.recent_first || p >= stream.rows) continue;
    const std::byte* const base = BlockOf(stream, 0, p);
    ExpectRow(base + stream.recent.k_off[layer] + p % 16 * stream.recent.row_bytes[layer].k, p,
              layer, 0);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::map<uint64_t, std::string> FakeEngine::Seen(const Stream& stream, uint64_t row,
                                                 uint32_t layer) {
  const shm::VersionDesc& table = Table(stream);
  const auto& span = *reinterpret_cast<const shm::LaneSpan*>(d_.get() + table.lanes_off);
  const auto* runs = reinterpret_cast<const shm::RunEntry*>(d_.get() + span.runs_off);
  const auto* sticky = reinterpret_cast<const uint64_t*>(d_.get() + span.sticky_off);
  const auto low_from = [&](uint64_t first) {
    return span.window != 0 && row + 1 > span.window ? std::max(first, row + 1 - span.window)
                                                     : first;
  };
  std::map<uint64_t, std::string> seen;
  const auto add = [&](uint64_t of_row, uint64_t position, const std::byte* k, const std::byte* v,
                       uint64_t k_bytes, uint64_t v_bytes) {
    std::string bytes = fmt::format("{} ", position);
    bytes.append(reinterpret_cast<const char*>(k), k_bytes);
    bytes.append(reinterpret_cast<const char*>(v), v_bytes);
    EXPECT_TRUE(seen.emplace(of_row, std::move(bytes)).second) << "twice: row " << of_row;
  };
  for (const shm::RunEntry& run : std::span(runs, span.runs)) {
    const bool encoded = run.encoding != 0;
    const shm::GroupGeometry& geometry = encoded                 ? stream.records->geometry
                                         : run.group_slots == 16 ? stream.block
                                                                 : stream.small;
    const std::byte* const base = GroupAt(run.extent, run.group_off, geometry);
    const uint64_t position = std::min(
        static_cast<uint64_t>(static_cast<int64_t>(row) - run.query_offset), run.query_max);
    const uint32_t column = geometry.trailer.position_sets > 1 ? layer : 0;
    for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
      const uint64_t of_row =
          LoadWord(base + geometry.pos_off + 4 * (uint64_t{column} * geometry.slots + s));
      if (run.flags == shm::kRunWindowed && of_row < low_from(span.records_from)) continue;
      const std::byte* const k = base + geometry.k_off[layer];
      const std::byte* const v = base + geometry.v_off[layer];
      if (encoded) {
        add(of_row, position, k, v, kernels::RecordBytes(stream.records->layers[layer].k),
            kernels::RecordBytes(stream.records->layers[layer].v));
      } else {
        const shm::LayerRowBytes bytes = geometry.row_bytes[layer];
        add(of_row, position, k + uint64_t{s} * bytes.k, v + uint64_t{s} * bytes.v, bytes.k,
            bytes.v);
      }
    }
  }
  std::vector<uint64_t> recent(sticky, sticky + span.sticky);
  const uint64_t low = low_from(span.recent_first);
  std::erase_if(recent, [&](uint64_t p) { return p >= low || p > row; });
  for (uint64_t p = low; p <= row; ++p) recent.push_back(p);
  for (const uint64_t p : recent) {
    const std::byte* const base = BlockOf(stream, 0, p);
    const shm::LayerRowBytes bytes = stream.recent.row_bytes[layer];
    add(p, row, base + stream.recent.k_off[layer] + p % 16 * bytes.k,
        base + stream.recent.v_off[layer] + p % 16 * bytes.v, bytes.k, bytes.v);
  }
  return seen;
}

}  // namespace kvasir::core::testing
