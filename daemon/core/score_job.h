// Scores the visible rows of one lane and lets the policy's selector choose, run by a worker.
//
// The pure part stands in policies/selection; here the bytes are found and copied. Rows and reports
// are the engine's to write meanwhile: each is read once, and what comes out of it is checked.
#ifndef KVASIR_DAEMON_CORE_SCORE_JOB_H_
#define KVASIR_DAEMON_CORE_SCORE_JOB_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/status.h>

#include "daemon/core/kept_list.h"
#include "kernels/scores.h"
#include "policies/retention_policy.h"
#include "policies/selection/gemfilter.h"
#include "proto/shm/report_geometry.h"

namespace kvasir::core {

// Heads of one layer.
struct HeadShape {
  kernels::RowType type = kernels::RowType::kF16;
  uint32_t kv_heads = 1;
  uint32_t query_heads = 0;
  uint32_t k_dim = 0;
};

// What a lane's scores are made of, and what comes out. The groups stay allocated while the job is
// out; kept ones are held by `kept`.
struct LaneScoring {
  size_t lane = 0;
  std::shared_ptr<const Selector> selector;  // shared with the policy
  ScoreNeeds needs;
  std::vector<HeadShape> layers;
  // Visible rows: the runs of `kept`, then the rows [recent_first, end) in `recent`, whose first
  // block starts at row recent_base.
  std::vector<KeptRun> kept;
  uint64_t kept_rows = 0;
  std::vector<const std::byte*> recent;
  const shm::GroupGeometry* recent_geometry = nullptr;
  uint64_t recent_base = 0, recent_first = 0, end = 0;
  std::vector<TokenId> ids;  // of the rows [recent_first, end)
  // Reports: kAttentionMass and kWindowQueries.
  const std::byte* report = nullptr;
  const shm::ReportGeometry* report_geometry = nullptr;
  std::shared_ptr<const std::vector<float>> base;  // [mass set][kept row], when the table began
  uint64_t tokens = 0;                             // since then
  // Shared with the sequence: its session has ended, and nobody wants the results.
  std::shared_ptr<const std::atomic<bool>> abandoned;

  // How far it is: the next layer, its first column and its first mass set.
  size_t next_layer = 0;
  uint32_t next_column = 0, next_set = 0;

  // Results, of the layers before.
  absl::Status status;
  std::vector<KeepSet> keep;        // one for each column
  std::vector<float> base_of_kept;  // [mass set][kept row of the next table]

  uint64_t entries() const { return kept_rows + (end - recent_first); }
};

// Scores of one layer, or mass of one block, beyond which a worker would need too much memory of
// its own: 128 query heads over a million rows. Errors: kResourceExhausted.
absl::Status CheckScoreCount(uint64_t heads, uint64_t rows);

// Fills the results of the next layer; true if there is one more. False after an error, too. Cost:
// one pass over the layer's keys, or over the reported mass. Thread-safe on different objects.
// Errors (in status): kInvalidArgument for scores that are not finite, kFailedPrecondition where
// the engine reported nothing, naming the layer; kCancelled soon after `abandoned` is set.
bool ScoreNextLayer(LaneScoring& scoring);

// A selection among the rows of a prompt, by their keys in one layer.
struct RowSelecting {
  std::shared_ptr<const GemFilter> filter;
  uint32_t layer = 0;
  uint64_t end = 0;  // rows it chooses from
  kernels::KeyShape shape;
  std::vector<kernels::KeyRun> keys;
  std::vector<float> query;  // [kv_head][dim], copied out of the report

  absl::Status status;
  std::vector<uint32_t> rows;  // ascending
};

// Fills the results. Cost: one pass over the keys.
void RunSelecting(RowSelecting& selecting);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SCORE_JOB_H_
