#include "tests/policies/score_simulator.h"

#include <algorithm>
#include <functional>

namespace kvasir::testing {

Rows ScoreSimulator::Visible(uint32_t column, uint64_t end) const {
  Rows rows = kept_[column];
  for (uint64_t row = table_.recent_first; row < end; ++row) rows.push_back(row);
  return rows;
}

void ScoreSimulator::Run(const ScoredModel& model) {
  model_ = &model;
  if (needs_.source == ScoreSource::kNone) {  // never decides; the model's columns stay alike
    columns_ = model.shared ? 1 : oracle_.kv_heads();
    kept_.resize(columns_);
  }
  TakePlans();
  while (ids_.size() < options_.rows && !::testing::Test::HasFailure()) {
    AppendChunk();
    if (truncations_ < 30 && Chance(options_.truncate_percent)) TruncateSomewhere();
    if (ids_.size() >= table_.until_row || Chance(options_.plan_percent)) TakePlans();
  }
  const std::vector<std::vector<Rows>> want = model.Run(oracle_, ids_);
  for (uint64_t row = 0; row < ids_.size(); ++row) {
    ASSERT_EQ(seen_[row], want[row]) << "query " << row;
  }
}

void ScoreSimulator::AppendChunk() {
  const uint64_t first = ids_.size();
  const uint64_t count =
      std::min({1 + UpTo(options_.chunk_max - 1), table_.until_row - first, options_.rows - first});
  std::vector<TokenId> chunk;
  for (uint64_t query = first; query < first + count; ++query) {
    chunk.push_back(static_cast<TokenId>(UpTo(options_.vocabulary - 1)));
    std::vector<Rows> visible;
    for (uint32_t column = 0; column < columns_; ++column) {
      visible.push_back(Visible(column, query + 1));
    }
    if (needs_.source == ScoreSource::kAttentionMass) {
      for (uint32_t head = 0; head < oracle_.kv_heads(); ++head) {
        mass_.Attend(head, query, visible[columns_ == 1 ? 0 : head]);
      }
    }
    seen_.push_back(std::move(visible));
  }
  ids_.insert(ids_.end(), chunk.begin(), chunk.end());
  policy_.Append(chunk);
  ASSERT_EQ(policy_.rows(), ids_.size());
}

void ScoreSimulator::TruncateSomewhere() {
  const uint64_t floor = policy_.RollbackFloor();
  ASSERT_LE(floor, ids_.size());
  if (needs_.source == ScoreSource::kAttentionMass) {
    ASSERT_EQ(floor, ids_.size());
  }
  if (floor > 0) {
    EXPECT_EQ(policy_.Truncate(floor - 1).code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(policy_.Truncate(ids_.size() + 1).code(), absl::StatusCode::kOutOfRange);
  const uint64_t rows = ids_.size() - UpTo(std::min<uint64_t>(ids_.size() - floor, 60));
  ASSERT_TRUE(policy_.Truncate(rows).ok());
  if (rows == ids_.size()) return;
  ids_.resize(rows);
  seen_.resize(rows);
  ++truncations_;
}

void ScoreSimulator::TakePlans() {
  while (!::testing::Test::HasFailure()) {
    if (const auto plan = policy_.NextPlan({16, 32})) {
      Apply(*plan, *model_);
    } else if (policy_.Waiting() != nullptr) {
      Decide();
    } else {
      break;
    }
  }
  ASSERT_TRUE(has_table_);
  ASSERT_LT(policy_.rows(), table_.until_row) << "a decision was due";
}

void ScoreSimulator::Decide() {
  const uint64_t end = policy_.DecisionRow();
  ASSERT_EQ(end, table_.until_row);
  ScoredRows scored;
  scored.kv_heads = oracle_.kv_heads();
  scored.sets = columns_;
  const bool by_query = needs_.source == ScoreSource::kWindowQueries;
  scored.heads = by_query ? oracle_.heads() : oracle_.kv_heads();
  std::vector<uint64_t> rows;
  std::vector<TokenId> ids;
  std::vector<float> scores;
  for (uint32_t column = 0; column < columns_; ++column) {
    const Rows visible = Visible(column, end);
    scored.entries = visible.size();
    for (const uint64_t row : visible) ids.push_back(ids_[row]);
    rows.insert(rows.end(), visible.begin(), visible.end());
  }
  for (uint32_t head = 0; head < scored.heads; ++head) {
    for (const uint64_t row : Visible(head * columns_ / scored.heads, end)) {
      const bool in_window = by_query && row + needs_.window_size >= end;
      scores.push_back(needs_.source == ScoreSource::kAttentionMass ? mass_.Of(head, row)
                       : in_window                                  ? 0
                                                                    : oracle_.OfRow(head, row));
    }
  }
  scored.scores = scores;
  scored.rows = rows;
  scored.ids = ids;
  auto keep = policy_.Waiting()->Select(scored);
  ASSERT_TRUE(keep.ok()) << keep.status();
  policy_.Decide(*std::move(keep));
  EXPECT_EQ(policy_.Waiting(), nullptr);
}

void ScoreSimulator::Apply(const RetentionPlan& plan, const ScoredModel& model) {
  ASSERT_LT(plan.from_row, plan.until_row);
  ASSERT_EQ(plan.window, 0u);
  ASSERT_TRUE(plan.drop.empty() && plan.append.empty() && plan.sticky.empty());
  if (!has_table_) {
    has_table_ = true;
    ASSERT_EQ(plan.from_row, 0u);
    ASSERT_TRUE(plan.keep.empty());
    table_ = plan;
    return;
  }
  ASSERT_EQ(plan.from_row, table_.until_row);
  ASSERT_GE(plan.recent_first, table_.recent_first);
  ASSERT_EQ(plan.recent_first, plan.from_row - model.recent);
  ASSERT_EQ(plan.keep.size(), columns_);
  for (uint32_t column = 0; column < columns_; ++column) {
    const KeepSet& set = plan.keep[column];
    ASSERT_EQ(set.size(), plan.keep.front().size());
    ASSERT_LE(set.size(), model.budget);
    ASSERT_LE(set.size(), needs_.kept_rows_max);
    ASSERT_TRUE(std::is_sorted(set.begin(), set.end(), std::less_equal<>()));
    const Rows before = Visible(column, plan.from_row);
    Rows kept;
    for (const uint32_t entry : set) kept.push_back(before.at(entry));
    ASSERT_TRUE(kept.empty() || kept.back() < plan.recent_first);
    kept_[column] = kept;
  }
  const uint64_t size = plan.keep.front().size();
  ASSERT_EQ(plan.spans,
            (size == 0 ? std::vector<KeptSpan>{} : std::vector<KeptSpan>{{size, 0, kNoRow}}));
  uneven_ += std::any_of(kept_.begin(), kept_.end(),
                         [&](const Rows& rows) { return rows != kept_.front(); })
                 ? 1
                 : 0;
  ++decisions_;
  table_ = plan;
}

}  // namespace kvasir::testing
