// Drives a policy as a daemon and an engine would, and compares what every query sees with a slow
// and obvious model: plain loops for Full, StreamingLLM and static SepLLM, and the machine that the
// golden vectors test, one row a step, for the streaming forms.
#ifndef KVASIR_TESTS_POLICIES_POLICY_SIMULATOR_H_
#define KVASIR_TESTS_POLICIES_POLICY_SIMULATOR_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "policies/retention_policy.h"

namespace kvasir::testing {

// A key as a query sees it: its row, and query position minus key position.
struct SeenKey {
  uint64_t row = 0;
  uint64_t distance = 0;
  friend bool operator==(const SeenKey&, const SeenKey&) = default;
};
using SeenKeys = std::vector<SeenKey>;  // in cache order

inline void PrintTo(const SeenKey& key, std::ostream* out) {
  *out << key.row << "@" << key.distance;
}

// What the queries of all rows see, for a whole token stream.
using Model = std::function<std::vector<SeenKeys>(const std::vector<TokenId>&)>;

// One table of a lane, made by carrying out plans.
struct Table {
  struct Record {
    uint64_t first = 0, last = 0;  // rows
  };
  std::vector<MovedRow> kept;
  std::vector<Record> records;
  RetentionPlan plan;

  SeenKeys SeenBy(uint64_t query) const {
    SeenKeys seen;
    size_t at = 0;
    for (const KeptSpan& span : plan.spans) {
      const auto position = std::min(
          static_cast<uint64_t>(static_cast<int64_t>(query) - span.query_offset), span.query_max);
      for (uint64_t i = 0; i < span.count; ++i, ++at) {
        seen.push_back({kept.at(at).row, position - kept.at(at).rotated_at});
      }
    }
    const uint64_t low = plan.window == 0 || query + 1 < plan.window ? 0 : query + 1 - plan.window;
    for (const Record& record : records) {
      const uint64_t from = std::max({record.first, low, plan.records_from});
      for (uint64_t row = from; row < record.last; ++row) seen.push_back({row, query - row});
    }
    const uint64_t first = std::max(low, plan.recent_first);
    for (uint64_t row = plan.recent_first; plan.far_position != 0 && row < first; ++row) {
      seen.push_back({row, plan.far_position});
    }
    for (const uint64_t row : plan.sticky) {
      if (row < first) seen.push_back({row, query - row});
    }
    for (uint64_t row = first; row <= query; ++row) seen.push_back({row, query - row});
    return seen;
  }
};

struct SimulatorOptions {
  uint64_t rows = 400;
  uint32_t vocabulary = 12;
  uint32_t slots_per_block = 16;
  uint64_t lead_rows = 32;
  uint64_t chunk_max = 40;
  int plan_percent = 50;     // chance that NextPlan is called though nothing forces it
  int truncate_percent = 0;  // chance of a truncation after a chunk
};

class Simulator {
 public:
  Simulator(RetentionPolicy* policy, SimulatorOptions options, uint64_t seed)
      : policy_(*policy), options_(options), random_(seed) {}

  void Run(const Model& model) {
    TakePlans();
    while (ids_.size() < options_.rows && !::testing::Test::HasFailure()) {
      AppendChunk();
      if (truncations_ < 40 && Percent() < options_.truncate_percent) TruncateSomewhere();
      if (policy_.rows() >= tables_.back().plan.until_row || Percent() < options_.plan_percent) {
        TakePlans();
      }
    }
    const std::vector<SeenKeys> want = model(ids_);
    for (uint64_t row = 0; row < ids_.size(); ++row) {
      ASSERT_EQ(seen_[row], want[row]) << "query " << row;
    }
    if (options_.truncate_percent > 0) return;
    for (const Table& table : tables_) {  // every claim of every table, used or not
      const uint64_t end = std::min<uint64_t>(table.plan.until_row, ids_.size());
      for (uint64_t row = table.plan.from_row; row < end; ++row) {
        ASSERT_EQ(table.SeenBy(row), want[row])
            << "query " << row << " table from " << table.plan.from_row;
      }
    }
  }

  const std::vector<Table>& tables() const { return tables_; }
  uint64_t truncations() const { return truncations_; }

 private:
  int Percent() { return static_cast<int>(random_() % 100); }
  uint64_t UpTo(uint64_t most) { return random_() % (most + 1); }

  const Table& TableOf(uint64_t query) const {
    for (auto table = tables_.rbegin(); table != tables_.rend(); ++table) {
      if (table->plan.from_row <= query) {
        EXPECT_LT(query, table->plan.until_row);
        return *table;
      }
    }
    return tables_.front();
  }

  void AppendChunk() {
    const uint64_t first = ids_.size();
    const uint64_t limit = tables_.back().plan.until_row - first;  // an engine cuts its chunk there
    const uint64_t count =
        std::min({1 + UpTo(options_.chunk_max - 1), limit, options_.rows - first});
    std::vector<TokenId> chunk;
    for (uint64_t i = 0; i < count; ++i) {
      chunk.push_back(static_cast<TokenId>(UpTo(options_.vocabulary - 1)));
      seen_.push_back(TableOf(first + i).SeenBy(first + i));
    }
    ids_.insert(ids_.end(), chunk.begin(), chunk.end());
    policy_.Append(chunk);
    ASSERT_EQ(policy_.rows(), ids_.size());
  }

  void TruncateSomewhere() {
    const uint64_t floor = policy_.RollbackFloor();
    ASSERT_LE(floor, ids_.size());
    if (floor > 0) {
      EXPECT_EQ(policy_.Truncate(floor - 1).code(), absl::StatusCode::kFailedPrecondition);
    }
    EXPECT_EQ(policy_.Truncate(ids_.size() + 1).code(), absl::StatusCode::kOutOfRange);
    const uint64_t most = std::min<uint64_t>(ids_.size() - floor, 60);
    const uint64_t rows = ids_.size() - UpTo(most);
    ASSERT_TRUE(policy_.Truncate(rows).ok());
    ids_.resize(rows);
    seen_.resize(rows);
    ++truncations_;
    TakePlans();
  }

  void TakePlans() {
    while (auto plan = policy_.NextPlan({options_.slots_per_block, options_.lead_rows})) {
      CheckPlan(*plan);
      if (::testing::Test::HasFailure()) return;
    }
    ASSERT_FALSE(tables_.empty());
    ASSERT_LT(policy_.rows(), tables_.back().plan.until_row) << "another plan was due";
  }

  void CheckPlan(const RetentionPlan& plan) {
    Table next;
    if (tables_.empty()) {
      ASSERT_EQ(plan.from_row, 0u);
      ASSERT_TRUE(plan.append.empty());
    } else {
      const Table& last = tables_.back();
      next.kept = last.kept;
      ASSERT_GE(plan.records_from, last.plan.records_from);
      for (const Table::Record& record : last.records) {
        if (record.last > plan.records_from) next.records.push_back(record);
      }
      if (plan.record_first < plan.record_last) {
        ASSERT_GE(plan.record_first, last.plan.recent_first);
        ASSERT_LE(plan.record_last, plan.recent_first);
        ASSERT_LE(plan.record_last, policy_.rows());
        next.records.push_back({plan.record_first, plan.record_last});
      }
      ASSERT_GE(plan.from_row, last.plan.from_row);
      ASSERT_LE(plan.from_row, last.plan.until_row);
      ASSERT_GE(plan.recent_first, last.plan.recent_first);
      if (plan.from_row > policy_.rows()) {
        ASSERT_EQ(plan.from_row, last.plan.until_row);
      }
    }
    ASSERT_LT(plan.from_row, plan.until_row);
    ASSERT_TRUE(std::is_sorted(plan.drop.begin(), plan.drop.end(), std::less_equal<>()));
    for (auto index = plan.drop.rbegin(); index != plan.drop.rend(); ++index) {
      ASSERT_LT(*index, next.kept.size());
      next.kept.erase(next.kept.begin() + *index);
    }
    for (const MovedRow& moved : plan.append) {
      ASSERT_LT(moved.row, policy_.rows());
      next.kept.push_back(moved);
    }
    uint64_t spanned = 0;
    for (const KeptSpan& span : plan.spans) spanned += span.count;
    ASSERT_EQ(spanned, next.kept.size());
    for (const MovedRow& moved : next.kept) ASSERT_LT(moved.row, plan.recent_first);
    ASSERT_TRUE(std::is_sorted(plan.sticky.begin(), plan.sticky.end(), std::less_equal<>()));
    if (!plan.sticky.empty()) {
      ASSERT_GE(plan.sticky.front(), plan.recent_first);
    }
    next.plan = plan;
    tables_.push_back(std::move(next));
  }

  RetentionPolicy& policy_;
  SimulatorOptions options_;
  std::mt19937_64 random_;
  std::vector<TokenId> ids_;
  std::vector<SeenKeys> seen_;
  std::vector<Table> tables_;
  uint64_t truncations_ = 0;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_POLICY_SIMULATOR_H_
