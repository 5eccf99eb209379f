// Selection policies: a prompt's rows are chosen by their keys in one layer, then the sequence
// begins again with the chosen ones.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

absl::Status Sequence::MakeSelection(const std::optional<GemFilterSpec>& selection) {
  if (!selection) return absl::OkStatus();
  const ModelDescription& model = context_.model->description();
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    if (model.layers[layer].sliding_window > 0) {
      return InvalidArgument(
          "a selection among all rows needs full attention in every layer: layer={} "
          "sliding_window={}",
          layer, model.layers[layer].sliding_window);
    }
  }
  GemFilterConfig config;
  config.topk = static_cast<uint32_t>(selection->topk);
  config.kernel = selection->kernel;
  config.n_sink = static_cast<uint32_t>(selection->n_sink);
  config.n_tail = static_cast<uint32_t>(selection->n_tail);
  KVASIR_ASSIGN_OR_RETURN(GemFilter filter, GemFilter::Create(config));
  filter_ = std::make_shared<const GemFilter>(std::move(filter));
  selection_ = selection;
  return absl::OkStatus();
}

std::optional<uint32_t> Sequence::filter_layer() const {
  if (!selection_) return std::nullopt;
  return selection_->filter_layer;
}

absl::StatusOr<std::optional<std::vector<uint32_t>>> Sequence::SelectRows(uint32_t new_uid,
                                                                          bool* asked) {
  if (!prompt_.empty()) {
    return FailedPrecondition("rows were selected before: prompt_rows={}", prompt_.size());
  }
  if (!selection_) {
    return FailedPrecondition("the sequence's policy selects no rows: retention={}",
                              identity_.retention);
  }
  if (rows_ == 0) return FailedPrecondition("there are no rows to select from: rows=0 min=1");
  // Another call may have changed the rows meanwhile.
  if (!*asked || !chosen_ || chosen_->end != rows_) {
    chosen_.reset();
    StartSelecting();
    *asked = true;
    return std::nullopt;
  }
  RowSelecting chosen = *std::exchange(chosen_, std::nullopt);
  KVASIR_RETURN_IF_ERROR(chosen.status);
  std::vector<TokenId> prompt(tokens_.begin(), tokens_.end());
  const uint64_t first = tokens_base_;
  KVASIR_RETURN_IF_ERROR(Truncate(0, new_uid));
  prompt_.assign(first, 0);
  prompt_.insert(prompt_.end(), prompt.begin(), prompt.end());
  prompt_rows_ = std::move(chosen.rows);
  return prompt_rows_;
}

void Sequence::StartSelecting() {
  const uint32_t layer = selection_->filter_layer;
  const Lane& lane = lanes_[LaneOfLayer()[layer]];
  const auto in_lane = static_cast<size_t>(
      std::find(lane.layers.begin(), lane.layers.end(), layer) - lane.layers.begin());
  const HeadShape& heads = lane.heads[in_lane];
  RowSelecting selecting;
  selecting.filter = filter_;
  selecting.end = rows_;
  selecting.layer = layer;
  selecting.shape = {heads.type, heads.kv_heads, heads.k_dim};
  const uint64_t slots = lane.recent_block.slots;
  const uint32_t bytes = lane.recent_block.row_bytes[in_lane].k;
  for (uint64_t row = 0; row < rows_; row += slots) {
    const Group& group = lane.recent[row / slots - lane.base_block];
    selecting.keys.push_back({group.data() + lane.recent_block.k_off[in_lane], bytes,
                              static_cast<uint32_t>(std::min(slots, rows_ - row))});
  }
  selecting.query.resize(size_t{heads.kv_heads} * heads.k_dim);
  std::memcpy(selecting.query.data(), lane.report.data() + lane.report_geometry.query_off[in_lane],
              selecting.query.size() * sizeof(float));
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = identity_.id;
  job->selecting = std::move(selecting);
  selecting_ = true;
  job_ = std::move(job);
}

std::vector<RowReport> Sequence::InspectPrompt(uint64_t first_row, uint32_t max_rows) const {
  std::vector<RowReport> reports;
  const uint64_t end = std::min<uint64_t>(prompt_.size(), first_row + max_rows);
  for (uint64_t row = first_row; row < end; ++row) {
    const bool chosen = std::binary_search(prompt_rows_.begin(), prompt_rows_.end(), row);
    reports.push_back({row, prompt_[row], true, chosen ? 1U : 0U});
  }
  return reports;
}

}  // namespace kvasir::core
