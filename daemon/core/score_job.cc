#include "daemon/core/score_job.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/row_convert.h"
#include "policies/selection/heavy_hitters.h"

#include <fmt/format.h>

namespace kvasir::core {
namespace {

constexpr uint64_t kScoresMax = 1 << 27;

// The keys of one kv head in one layer, in the order of the entries.
std::vector<kernels::KeyRun> KeysOf(const LaneScoring& s, size_t layer, uint32_t kv_head) {
  std::vector<kernels::KeyRun> runs;
  const HeadShape& shape = s.layers[layer];
  const uint64_t head = kv_head * uint64_t{shape.k_dim} * kernels::ElementBytes(shape.type);
  const auto add = [&](const std::byte* group, const shm::GroupGeometry& geometry, uint64_t slot,
                       uint64_t rows) {
    const uint32_t bytes = geometry.row_bytes[layer].k;
    runs.push_back(
        {group + geometry.k_off[layer] + slot * bytes + head, bytes, static_cast<uint32_t>(rows)});
  };
  for (const KeptRun& run : s.kept) {
    add(run.group->group().data(), run.group->geometry(), run.first_slot, run.rows);
  }
  const uint64_t slots = s.recent_geometry->slots;
  for (uint64_t row = s.recent_first; row < s.end;) {
    const uint64_t at = row - s.recent_base;
    const uint64_t rows = std::min(s.end - row, slots - at % slots);
    add(s.recent[at / slots], *s.recent_geometry, at % slots, rows);
    row += rows;
  }
  return runs;
}

// Queries of one kv head's group as [head][window][dim], copied out of the report once.
std::vector<float> QueriesOf(const LaneScoring& s, size_t layer, uint32_t kv_head) {
  const HeadShape& shape = s.layers[layer];
  const uint32_t group = shape.query_heads / shape.kv_heads;
  const uint32_t window = s.needs.window_size;
  const std::byte* from = s.report + s.report_geometry->query_off[layer];
  std::vector<float> queries(size_t{group} * window * shape.k_dim);
  for (uint32_t h = 0; h < group; ++h) {
    for (uint32_t w = 0; w < window; ++w) {
      const size_t head = size_t{w} * shape.query_heads + kv_head * group + h;
      std::memcpy(&queries[(size_t{h} * window + w) * shape.k_dim], from + head * shape.k_dim * 4,
                  size_t{shape.k_dim} * 4);
    }
  }
  return queries;
}

// What was reported since the table began, and the faded scores from before.
absl::Status AddMass(const LaneScoring& s, uint32_t set, float* out) {
  if (s.kept_rows > 0) {
    std::memcpy(out, s.report + s.report_geometry->MassOffset(set), s.kept_rows * 4);
  }
  const shm::GroupGeometry& geometry = *s.recent_geometry;
  const uint64_t slots = geometry.slots;
  float* to = out + s.kept_rows;
  for (uint64_t row = s.recent_first; row < s.end;) {
    const uint64_t at = row - s.recent_base;
    const uint64_t rows = std::min(s.end - row, slots - at % slots);
    std::memcpy(to, s.recent[at / slots] + geometry.mass_off + 4 * (set * slots + at % slots),
                rows * 4);
    to += rows;
    row += rows;
  }
  // A query's probabilities add up to one, so all zeros means that nobody reported.
  if (std::all_of(out, out + s.entries(), [](float mass) { return mass == 0; })) {
    return FailedPrecondition("no attention mass was reported: mass_set={} rows={}", set,
                              s.entries());
  }
  std::span<const float> base;  // decay 0: what was before is forgotten
  if (s.base != nullptr && s.needs.decay > 0) {
    base = std::span(*s.base).subspan(set * s.kept_rows, s.kept_rows);
  }
  const std::span<float> total(out, s.entries());
  return AddRunningScores(base, s.needs.decay > 0 ? s.needs.decay : 1.0, s.tokens, total, total);
}

// [heads][entries] scores of one layer.
absl::StatusOr<std::vector<float>> ScoresOf(const LaneScoring& s, size_t layer, uint32_t first_set,
                                            uint32_t* heads) {
  const HeadShape& shape = s.layers[layer];
  const uint64_t entries = s.entries();
  const bool by_query = s.needs.source == ScoreSource::kWindowQueries;
  *heads = by_query ? shape.query_heads : shape.kv_heads;
  const uint32_t per_kv_head = *heads / shape.kv_heads;
  KVASIR_RETURN_IF_ERROR(CheckScoreCount(*heads, entries));
  std::vector<float> scores(*heads * entries);
  const kernels::KeyShape keys{shape.type, 1, shape.k_dim};
  for (uint32_t h = 0; h < shape.kv_heads; ++h) {
    if (s.abandoned != nullptr && *s.abandoned)
      return absl::CancelledError("the session has ended");
    float* out = scores.data() + h * per_kv_head * entries;
    switch (s.needs.source) {
      case ScoreSource::kAttentionMass:
        KVASIR_RETURN_IF_ERROR(AddMass(s, first_set + h, out));
        break;
      case ScoreSource::kWindowQueries: {
        const std::vector<float> queries = QueriesOf(s, layer, h);
        const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.k_dim)));
        kernels::WindowMass(keys, per_kv_head, s.needs.window_size, scale, queries.data(),
                            KeysOf(s, layer, h), out);
        for (uint32_t q = 0; q < per_kv_head; ++q) {
          const uint64_t own = std::min<uint64_t>(entries, s.needs.window_size);
          std::fill_n(out + (q + 1) * entries - own, own, 0.0F);
        }
        break;
      }
      case ScoreSource::kKeyNorm:
        kernels::KeyNormScores(keys, KeysOf(s, layer, h), out);
        break;
      case ScoreSource::kKeyDifference:
        kernels::KeyDifferenceScores(keys, KeysOf(s, layer, h), out);
        break;
      case ScoreSource::kLocalMass:
      case ScoreSource::kNone:
        return Internal("a lane without scores waits for a decision: lane={}", s.lane);
    }
  }
  return scores;
}

// Row numbers and ids of the entries: one set, or one for each of the layer's columns.
struct EntryRows {
  std::vector<uint64_t> rows;
  std::vector<TokenId> ids;
  uint32_t sets = 1;
};

EntryRows RowsOf(const LaneScoring& s, uint32_t first_column, uint32_t columns) {
  EntryRows out;
  const bool own = std::any_of(s.kept.begin(), s.kept.end(),
                               [](const KeptRun& run) { return run.group->columns() > 1; });
  out.sets = own ? columns : 1;
  for (uint32_t set = 0; set < out.sets; ++set) {
    for (const KeptRun& run : s.kept) {
      for (uint32_t i = 0; i < run.rows; ++i) {
        const KeptSlot& slot = run.group->Slot(first_column + set, run.first_slot + i);
        out.rows.push_back(slot.row);
        out.ids.push_back(slot.token);
      }
    }
    for (uint64_t row = s.recent_first; row < s.end; ++row) out.rows.push_back(row);
    out.ids.insert(out.ids.end(), s.ids.begin(), s.ids.end());
  }
  return out;
}

absl::Status ScoreLayer(LaneScoring& s) {
  const HeadShape& shape = s.layers[s.next_layer];
  const uint32_t columns = s.needs.shared_across_heads ? 1 : shape.kv_heads;
  uint32_t heads = 0;
  KVASIR_ASSIGN_OR_RETURN(std::vector<float> scores, ScoresOf(s, s.next_layer, s.next_set, &heads));
  const EntryRows rows = RowsOf(s, s.next_column, columns);
  ScoredRows scored;
  scored.kv_heads = shape.kv_heads;
  scored.heads = heads;
  scored.entries = s.entries();
  scored.scores = scores;
  scored.sets = rows.sets;
  scored.rows = rows.rows;
  scored.ids = rows.ids;
  KVASIR_ASSIGN_OR_RETURN(std::vector<KeepSet> keep, s.selector->Select(scored));
  if (keep.size() != columns) {
    return Internal("selector chose for another number of heads: sets={} expected={}", keep.size(),
                    columns);
  }
  if (s.needs.source == ScoreSource::kAttentionMass) {
    for (uint32_t h = 0; h < shape.kv_heads; ++h) {
      const KeepSet& set = keep[s.needs.shared_across_heads ? 0 : h];
      for (const uint32_t entry : set) {
        if (entry >= s.entries()) return Internal("selector chose an unknown entry: {}", entry);
        s.base_of_kept.push_back(scores[h * s.entries() + entry]);
      }
    }
  }
  std::move(keep.begin(), keep.end(), std::back_inserter(s.keep));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckScoreCount(uint64_t heads, uint64_t rows) {
  if (rows <= kScoresMax / heads) return absl::OkStatus();
  return ResourceExhausted("too many scores for one decision: heads={} rows={} max_scores={}",
                           heads, rows, kScoresMax);
}

bool ScoreNextLayer(LaneScoring& s) {
  if (s.next_layer == s.layers.size() || !s.status.ok()) return false;
  s.status = ScoreLayer(s);
  if (!s.status.ok()) {
    s.status =
        MakeError(s.status.code(), fmt::format("no decision by scores: layer={} of the lane: {}",
                                               s.next_layer, MessageOf(s.status)));
    return false;
  }
  const uint32_t kv_heads = s.layers[s.next_layer].kv_heads;
  s.next_column += s.needs.shared_across_heads ? 1 : kv_heads;
  s.next_set += kv_heads;
  ++s.next_layer;
  return s.next_layer < s.layers.size();
}

void RunSelecting(RowSelecting& selecting) {
  absl::StatusOr<GemFilterChoice> choice =
      selecting.filter->Select(selecting.shape, selecting.query, selecting.keys);
  if (choice.ok()) {
    selecting.rows = std::move(choice->positions);
    return;
  }
  selecting.status =
      MakeError(choice.status().code(), fmt::format("rows cannot be selected: filter_layer={}: {}",
                                                    selecting.layer, MessageOf(choice.status())));
}

}  // namespace kvasir::core
