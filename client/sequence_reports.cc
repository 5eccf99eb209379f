// What a sequence reports to its policies: attention mass, queries, and the query of a selection.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/status_macros.h"
#include "client/sequence_state.h"

namespace kvasir {
namespace {

constexpr uint32_t kRetrievedRowsMax = 1U << 24;
constexpr uint32_t kRecordRowsMax = 1U << 16, kRecordBytesMax = 1U << 24;
// Of coded values (docs/encodings.md).
constexpr uint32_t kCodeBitsMin = 2, kCodeBitsMax = 3, kCodeDimsMin = 16, kCodeDimsMax = 256;
constexpr uint64_t kReportBytesMax = uint64_t{1} << 40;  // far above any memory: sums cannot wrap

}  // namespace

SequenceState::SequenceState(std::shared_ptr<SessionState> session, ClientModel model,
                             const v1::OpenSequenceResponse& opened)
    : session_(std::move(session)),
      model_(std::move(model)),
      slot_(opened.sequence()),
      id_(opened.sequence_id()),
      retention_(opened.retention()),
      condensed_from_(opened.condensed_from()),
      unrotated_(opened.unrotated()),
      filter_layer_(opened.has_filter_layer() ? std::optional<uint32_t>(opened.filter_layer())
                                              : std::nullopt),
      far_position_(opened.far_position()),
      step_rows_max_(opened.step_rows_max()),
      retrieved_rows_(opened.retrieved_rows()),
      retrieved_blocks_max_(opened.retrieved_blocks_max()),
      lane_of_layer_(opened.lane_of_layer().begin(), opened.lane_of_layer().end()),
      board_(session_->Board(slot_)),
      desk_(session_->Desk(slot_)),
      session_state_(session_->header().session_state),
      vocabulary_size_(model_.vocabulary_size),
      uid_(opened.uid()),
      layers_(model_.row_bytes.size()),
      lanes_(static_cast<size_t>(opened.lanes_size())),
      retrieved_(model_.row_bytes.size()) {}

absl::StatusOr<std::unique_ptr<SequenceState>> SequenceState::Create(
    std::shared_ptr<SessionState> session, ClientModel model,
    const v1::OpenSequenceResponse& opened) {
  const auto lanes = static_cast<uint32_t>(opened.lanes_size());
  bool fits = opened.sequence() < session->header().seq_max &&
              static_cast<size_t>(opened.lane_of_layer_size()) == model.row_bytes.size() &&
              (!opened.has_filter_layer() || opened.filter_layer() < model.row_bytes.size());
  for (const uint32_t lane : opened.lane_of_layer()) fits = fits && lane < lanes;
  // Retrieval: one lane, and all figures or none.
  fits = fits && (opened.far_position() == 0 ||
                  (lanes == 1 && opened.step_rows_max() > 0 && opened.retrieved_rows() > 0 &&
                   opened.retrieved_rows() <= kRetrievedRowsMax && opened.unrotated()));
  if (!fits) return DataLoss("the daemon's sequence does not fit the model: lanes={}", lanes);
  std::unique_ptr<SequenceState> state(
      new SequenceState(std::move(session), std::move(model), opened));
  for (uint32_t layer = 0; layer < state->lane_of_layer_.size(); ++layer) {
    state->lanes_[state->lane_of_layer_[layer]].layers.push_back(layer);
  }
  for (uint32_t i = 0; i < lanes; ++i) {
    const absl::Status status =
        state->OpenLane(state->lanes_[i], opened.lanes(static_cast<int>(i)));
    if (!status.ok()) {
      (void)state->Close();
      return status;
    }
  }
  if (opened.rows() > 0) {  // of a snapshot
    const absl::Status status = state->BeginAt(opened.rows());
    if (!status.ok()) {
      (void)state->Close();
      return status;
    }
  }
  return state;
}

static_assert(static_cast<int>(RecordCodec::kAsWritten) == v1::RECORD_CODEC_AS_WRITTEN &&
              static_cast<int>(RecordCodec::kInt8) == v1::RECORD_CODEC_INT8 &&
              static_cast<int>(RecordCodec::kInt4) == v1::RECORD_CODEC_INT4 &&
              static_cast<int>(RecordCodec::kTokenMixed) == v1::RECORD_CODEC_TOKEN_MIXED);

absl::Status SequenceState::OpenRecords(LaneViews& lane, const v1::LaneRecords& opened) {
  bool fits = opened.rows() > 0 && opened.rows() <= kRecordRowsMax &&
              static_cast<size_t>(opened.layers_size()) == lane.layers.size();
  std::vector<shm::LayerRecordBytes> bytes;
  for (int i = 0; fits && i < opened.layers_size(); ++i) {
    const v1::LayerRecords& layer = opened.layers(i);
    fits = v1::RecordCodec_IsValid(layer.k_codec()) && v1::RecordCodec_IsValid(layer.v_codec()) &&
           layer.k_bytes() <= kRecordBytesMax && layer.v_bytes() <= kRecordBytesMax;
    lane.record_formats.push_back({opened.rows(), static_cast<RecordCodec>(layer.k_codec()),
                                   static_cast<RecordCodec>(layer.v_codec()), layer.k_planes(),
                                   layer.v_planes(), layer.k_bytes(), layer.v_bytes()});
    bytes.push_back(
        {model_.kv_heads[lane.layers[static_cast<size_t>(i)]], layer.k_bytes(), layer.v_bytes()});
  }
  if (!fits) {
    return DataLoss("the daemon's records do not fit the model: rows={} layers={}", opened.rows(),
                    opened.layers_size());
  }
  lane.record_block = shm::MakeRecordGeometry(bytes, opened.rows());
  lane.records.resize(lane.layers.size());
  return absl::OkStatus();
}

absl::Status SequenceState::OpenValueCodes(const LaneViews& lane, const v1::LaneValueCodes& opened,
                                           std::vector<shm::LayerRowBytes>& bytes) const {
  const uint64_t bits = opened.bits();
  if (bits < kCodeBitsMin || bits > kCodeBitsMax ||
      static_cast<size_t>(opened.row_bytes_size()) != bytes.size()) {
    return DataLoss(
        "the daemon's coded values do not fit the model: bits={} min={} max={} layers={} "
        "expected={}",
        bits, kCodeBitsMin, kCodeBitsMax, opened.row_bytes_size(), bytes.size());
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint32_t layer = lane.layers[i], dims = model_.v_head_dim[layer];
    const uint32_t row_bytes = opened.row_bytes(static_cast<int>(i));
    // Whoever attends the codes reads this many bytes of each row, whatever the daemon says.
    const uint64_t expected = model_.kv_heads[layer] * (1 + dims * bits / 8);
    if (!std::has_single_bit(dims) || dims < kCodeDimsMin || dims > kCodeDimsMax ||
        row_bytes != expected) {
      return DataLoss(
          "the daemon's coded values do not fit the model: layer={} row_bytes={} expected={} "
          "v_head_dim={} bits={}",
          layer, row_bytes, expected, dims, bits);
    }
    bytes[i].v = row_bytes;
  }
  return absl::OkStatus();
}

absl::Status SequenceState::OpenLane(LaneViews& lane, const v1::LaneReport& opened) {
  std::vector<shm::LayerRowBytes> bytes;
  uint32_t heads = 0, mass_heads = 0;
  for (const uint32_t layer : lane.layers) {
    bytes.push_back(model_.row_bytes[layer]);
    lane.first_mass_set.push_back(mass_heads);
    heads += model_.kv_heads[layer];
    mass_heads += retrieves() ? model_.query_heads[layer] : model_.kv_heads[layer];
  }
  const auto layers = static_cast<uint32_t>(lane.layers.size());
  const uint32_t sets = opened.position_sets();
  const uint32_t mass_sets = opened.mass_sets();
  const auto query_layers = static_cast<uint32_t>(opened.query_floats_size());
  if (layers == 0 || (sets != 1 && sets != layers && sets != heads) ||
      (mass_sets != 0 && mass_sets != mass_heads) ||
      (query_layers != 0 && query_layers != layers) ||
      opened.kept_rows_max() > kReportBytesMax / 4 / std::max(1U, mass_sets) ||
      !(opened.mass_decay() >= 0.0 && opened.mass_decay() <= 1.0)) {
    return DataLoss("the daemon's lane does not fit the model: position_sets={} mass_sets={}", sets,
                    mass_sets);
  }
  lane.heads_keep_own = sets == heads && sets != layers;
  uint32_t column = 0;
  for (const uint32_t layer : lane.layers) {
    lane.first_column.push_back(sets == 1 ? 0 : column);
    column += lane.heads_keep_own ? model_.kv_heads[layer] : 1;
  }
  const uint32_t slots = model_.slots_per_block;
  lane.recent_block = shm::MakeGroupGeometry(bytes, slots, {1, mass_sets});
  if (opened.has_value_codes()) {
    KVASIR_RETURN_IF_ERROR(OpenValueCodes(lane, opened.value_codes(), bytes));
  }
  lane.block = shm::MakeGroupGeometry(bytes, slots, {sets, 0});
  lane.small = shm::MakeGroupGeometry(bytes, shm::SmallGroupSlots(slots), {sets, 0});
  lane.block.v_bits = lane.small.v_bits = opened.value_codes().bits();
  lane.kept.resize(layers);
  lane.recent.resize(layers);
  lane.report_geometry = shm::MakeReportGeometry(
      {mass_sets, opened.kept_rows_max(), opened.query_rows(),
       std::vector<uint32_t>(opened.query_floats().begin(), opened.query_floats().end())});
  if (opened.has_records()) KVASIR_RETURN_IF_ERROR(OpenRecords(lane, opened.records()));
  lane.mass_decay = opened.mass_decay();
  lane.first_query_row = opened.first_query_row();
  if (mass_sets > 0) {
    reports_mass_ = true;
    mass_decay_ = lane.mass_decay;
  }
  if (lane.report_geometry.bytes > 0) {
    KVASIR_ASSIGN_OR_RETURN(
        lane.report, session_->extents->At(opened.extent(), opened.generation(), opened.offset(),
                                           lane.report_geometry.bytes, session_->DeadlineFromNow(),
                                           Access::kReadWrite));
  }
  return absl::OkStatus();
}

void SequenceState::ClearKeptMass(LaneViews& lane) {
  const shm::ReportShape& shape = lane.report_geometry.shape;
  if (shape.mass_sets == 0) return;
  std::memset(lane.report, 0, size_t{4} * shape.mass_sets * shape.kept_rows_max);
}

void SequenceState::PrepareReports() {
  const uint64_t slots = model_.slots_per_block;
  for (LaneViews& lane : lanes_) {
    const shm::ReportGeometry& geometry = lane.report_geometry;
    if (geometry.bytes == 0 || filter_layer_) continue;
    const uint32_t sets = geometry.shape.mass_sets;
    const uint64_t base = lane.first_block * slots;
    lane.recent_mass_rows = RoundUp(rows_ + begun_, slots) - base;
    lane.kept_mass.assign(sets * lane.kept_rows, 0.0F);
    lane.recent_mass.assign(sets * lane.recent_mass_rows, 0.0F);
    for (size_t l = 0; l < lane.layers.size(); ++l) {
      LayerView& view = layers_[lane.layers[l]];
      if (sets > 0) {
        view.mass.by_query_head = retrieves();
        view.mass.kept_rows = retrieves() ? 0 : lane.kept_rows;
        view.mass.recent_rows = lane.recent_mass_rows;
        view.mass.kept =
            retrieves() ? nullptr : lane.kept_mass.data() + lane.first_mass_set[l] * lane.kept_rows;
        view.mass.recent = lane.recent_mass.data() + lane.first_mass_set[l] * lane.recent_mass_rows;
      }
      if (geometry.shape.query_rows > 0 && !retrieves()) {
        view.queries.data = reinterpret_cast<float*>(lane.report + geometry.query_off[l]);
        view.queries.first_row = lane.first_query_row;
        view.queries.count = geometry.shape.query_rows;
        view.queries.row_floats = geometry.shape.query_floats[l];
      }
    }
  }
}

// Adds `rows` tokens' worth of mass to what the daemon reads.
void SequenceState::AddStepMass(LaneViews& lane, uint64_t rows) {
  const shm::ReportShape& shape = lane.report_geometry.shape;
  if (shape.mass_sets == 0) return;
  const auto fade = static_cast<float>(std::pow(lane.mass_decay, static_cast<double>(rows)));
  const auto add = [fade](std::byte* shared, const float* step, uint64_t count) {
    auto* const sums = reinterpret_cast<float*>(shared);
    for (uint64_t i = 0; i < count; ++i) sums[i] = sums[i] * fade + step[i];
  };
  const uint64_t slots = model_.slots_per_block;
  const uint64_t mass_off = lane.recent_block.mass_off - lane.recent_block.pos_off;
  const uint64_t kept = std::min(lane.kept_rows, shape.kept_rows_max);
  for (uint32_t set = 0; set < shape.mass_sets; ++set) {
    add(lane.report + lane.report_geometry.MassOffset(set),
        lane.kept_mass.data() + set * lane.kept_rows, kept);
    const float* const step = lane.recent_mass.data() + set * lane.recent_mass_rows;
    for (uint64_t block = 0; block * slots < lane.recent_mass_rows; ++block) {
      add(lane.trailers[block] + mass_off + 4 * set * slots, step + block * slots, slots);
    }
  }
}

}  // namespace kvasir
