// When rows lie in records, and what a spec may ask of encodings. What is visible is the
// conformance suite's matter.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/encoding_spec.h"
#include "policies/policy_registry.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::HasSubstr;

struct MadeRecord {
  uint64_t from_row, first, last;
  friend bool operator==(const MadeRecord&, const MadeRecord&) = default;
};
void PrintTo(const MadeRecord& record, std::ostream* out) {
  *out << record.first << ".." << record.last << " from " << record.from_row;
}

PolicyContext Context() {
  PolicyContext context;
  context.separators = {1, 2};
  context.dtype = "f16";
  return context;
}

// Records of `rows` rows appended `chunk` at a time, plans taken after each and where one is due.
std::vector<MadeRecord> RecordsOf(const std::string& spec, uint64_t rows, uint64_t chunk) {
  absl::StatusOr<PolicyLanes> lanes = MakeLanes(spec, Context());
  EXPECT_TRUE(lanes.ok()) << MessageOf(lanes.status());
  RetentionPolicy& policy = *lanes->lanes.front();
  std::vector<MadeRecord> records;
  uint64_t until = 0;
  while (policy.rows() < rows) {
    while (std::optional<RetentionPlan> plan = policy.NextPlan({16, 32})) {
      until = plan->until_row;
      if (plan->record_first == plan->record_last) continue;
      EXPECT_LE(plan->record_last, policy.rows());
      records.push_back({plan->from_row, plan->record_first, plan->record_last});
    }
    EXPECT_GT(until, policy.rows());
    const uint64_t count = std::min({chunk, rows - policy.rows(), until - policy.rows()});
    policy.Append(std::vector<TokenId>(count, 7));
  }
  return records;
}

TEST(EncodedPolicyTest, ARecordIsInUseWhenItsRowsAreOlderThanRecent) {
  const std::vector<MadeRecord> want = {{100, 4, 68}, {164, 68, 132}, {228, 132, 196}};
  for (const uint64_t chunk : {1U, 7U, 64U, 1000U}) {
    EXPECT_EQ(RecordsOf("full+int8:rows=64,n_sink=4,recent=32", 250, chunk), want) << chunk;
  }
}

TEST(EncodedPolicyTest, RecordsDoNotDependOnTheBatches) {
  const std::string specs[] = {"full+tm32:n_sink=0,recent=0",
                               "streamingllm:start_size=4,recent_size=100+int4:rows=32",
                               "streamingllm:start_size=0,recent_size=120,positions=original+tm64",
                               "window:size=200+int8/int4"};
  for (const std::string& spec : specs) {
    const std::vector<MadeRecord> one_by_one = RecordsOf(spec, 700, 1);
    EXPECT_FALSE(one_by_one.empty()) << spec;
    for (const uint64_t chunk : {3U, 16U, 50U, 700U}) {
      EXPECT_EQ(RecordsOf(spec, 700, chunk), one_by_one) << spec << " chunk " << chunk;
    }
  }
}

TEST(EncodedPolicyTest, NoRowLiesInTwoRecordsAndFirstRowsInNone) {
  const auto records =
      RecordsOf("streamingllm:start_size=9,recent_size=150+tm64:recent=10", 900, 13);
  ASSERT_GT(records.size(), 5U);
  EXPECT_EQ(records.front().first, 9U);  // the policy's own first rows
  for (size_t i = 1; i < records.size(); ++i) EXPECT_GE(records[i].first, records[i - 1].last);
}

// How many kept rows lie in records, for the queries of `ids`, where nothing kept is dropped:
// records fill in cache order. Plans are taken and tables used at random.
std::vector<uint64_t> EncodedKeptRows(const std::string& spec, const std::vector<TokenId>& ids,
                                      uint64_t record_rows, uint64_t n_sink, uint64_t seed) {
  absl::StatusOr<PolicyLanes> lanes = MakeLanes(spec, Context());
  EXPECT_TRUE(lanes.ok()) << MessageOf(lanes.status());
  RetentionPolicy& policy = *lanes->lanes.front();
  std::mt19937_64 random(seed);
  std::vector<RetentionPlan> plans;
  std::vector<uint64_t> candidates;  // by plan: kept rows that may lie in records
  std::vector<uint64_t> encoded;
  while (policy.rows() < ids.size()) {
    if (plans.empty() || policy.rows() >= plans.back().until_row || random() % 3 == 0) {
      while (std::optional<RetentionPlan> plan = policy.NextPlan({16, 32})) {
        uint64_t count = candidates.empty() ? 0 : candidates.back();
        for (const MovedRow& moved : plan->append) count += moved.row >= n_sink ? 1 : 0;
        candidates.push_back(count);
        plans.push_back(*std::move(plan));
      }
    }
    const uint64_t row = policy.rows();
    const uint64_t end =
        std::min<uint64_t>({ids.size(), plans.back().until_row, row + 1 + random() % 50});
    for (uint64_t query = row; query < end; ++query) {
      size_t at = plans.size() - 1;  // the newest table that may be used, or an older one
      while (plans[at].from_row > query) --at;
      while (at > 0 && plans[at - 1].until_row > query && random() % 2 == 0) --at;
      encoded.push_back(candidates[at] / record_rows * record_rows);
    }
    policy.Append(std::span(ids).subspan(row, end - row));
  }
  return encoded;
}

TEST(EncodedPolicyTest, KeptRowsAreInRecordsFromARowThatTheIdsAloneSay) {
  std::mt19937_64 random(3);
  std::vector<TokenId> ids(900);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % 3);
  for (const uint64_t window : {2U, 20U, 100U}) {
    const std::string spec = fmt::format(
        "sepllm:form=static,init_cache_size=6,local_size={}+int8:rows=32,n_sink=9", window);
    std::vector<uint64_t> want(ids.size());
    uint64_t staying = 0, left = 0;
    for (uint64_t query = 0; query < ids.size(); ++query) {
      // A separator leaves the window: it is the query's own no more.
      for (; left + window <= query; ++left) staying += left >= 9 && ids[left] != 0 ? 1 : 0;
      want[query] = staying / 32 * 32;
    }
    ASSERT_GT(want.back(), 400U);
    for (uint64_t seed = 0; seed < 20; ++seed) {
      ASSERT_EQ(EncodedKeptRows(spec, ids, 32, 9, seed), want) << spec << " seed " << seed;
    }
  }
}

// A record of kept rows is planned ahead of its row, from the ids of then alone.
TEST(EncodedPolicyTest, RowsBehindAPlannedRecordOfKeptRowsCanBeTruncated) {
  absl::StatusOr<PolicyLanes> lanes =
      MakeLanes("stride:size=1|window:size=40+int8:rows=32,n_sink=0", Context());
  ASSERT_TRUE(lanes.ok()) << MessageOf(lanes.status());
  RetentionPolicy& policy = *lanes->lanes.front();
  while (policy.NextPlan({16, 16})) continue;
  std::optional<RetentionPlan> last;
  while (policy.rows() < 64) {
    policy.Append(std::vector<TokenId>(1, 7));
    while (std::optional<RetentionPlan> plan = policy.NextPlan({16, 16})) last = std::move(plan);
  }
  // The rows 0 to 31 are out of the window of row 71; half a block ahead is time enough.
  EXPECT_EQ(last->from_row, 71U);
  EXPECT_EQ(last->recent_first, 32U);
  EXPECT_EQ(policy.RollbackFloor(), 55U);
  ASSERT_TRUE(policy.Truncate(55).ok());
  EXPECT_FALSE(policy.NextPlan({16, 16}).has_value());
  policy.Append(std::vector<TokenId>(16, 7));
  EXPECT_EQ(policy.RollbackFloor(), 71U);
}

// What a window shows next after a truncation may end before the record begins that is planned
// ahead.
TEST(EncodedPolicyTest, NoTableEndsBeforeItBegins) {
  uint64_t truncations = 0;
  absl::StatusOr<PolicyLanes> lanes = MakeLanes("window:size=49+int8:rows=32,recent=70", Context());
  ASSERT_TRUE(lanes.ok()) << MessageOf(lanes.status());
  RetentionPolicy& policy = *lanes->lanes.front();
  RetentionPlan last;
  const auto take = [&policy, &last] {
    while (std::optional<RetentionPlan> plan = policy.NextPlan({16, 0})) {
      EXPECT_LT(plan->from_row, plan->until_row);
      EXPECT_LE(plan->from_row, last.until_row);
      last = *std::move(plan);
    }
    EXPECT_LT(policy.rows(), last.until_row);
  };
  take();
  for (const size_t rows : {49U, 6U}) {  // so that windows begin amid a block from here on
    policy.Append(std::vector<TokenId>(rows, 7));
    take();
  }
  while (policy.rows() < 2000 && !HasFailure()) {
    policy.Append(std::vector<TokenId>(std::min<uint64_t>(16, last.until_row - policy.rows()), 7));
    take();
    if (policy.RollbackFloor() + 49 > last.from_row) continue;
    ASSERT_TRUE(policy.Truncate(policy.RollbackFloor()).ok());
    ++truncations;
    take();
    policy.Append(std::vector<TokenId>(last.until_row - policy.rows(), 7));
    take();
  }
  EXPECT_GT(truncations, 0U);
}

TEST(EncodedPolicyTest, TruncationStopsAtTheRecordsThatAreInUse) {
  absl::StatusOr<PolicyLanes> lanes = MakeLanes("full+int4:n_sink=4,recent=32", Context());
  ASSERT_TRUE(lanes.ok());
  RetentionPolicy& policy = *lanes->lanes.front();
  while (policy.NextPlan({16, 32})) continue;
  policy.Append(std::vector<TokenId>(70, 7));
  EXPECT_EQ(policy.RollbackFloor(), 0U);
  while (policy.NextPlan({16, 32})) continue;  // a record of the rows 4 to 67, due at row 100
  EXPECT_EQ(policy.RollbackFloor(), 68U);
  ASSERT_TRUE(policy.Truncate(68).ok());
  policy.Append(std::vector<TokenId>(32, 7));
  EXPECT_EQ(policy.RollbackFloor(), 100U);
  EXPECT_EQ(policy.Truncate(99).code(), absl::StatusCode::kFailedPrecondition);
}

std::string Canonical(const std::string& spec, const PolicyContext& context) {
  const absl::StatusOr<PolicyLanes> lanes = MakeLanes(spec, context);
  return lanes.ok() ? lanes->spec : MessageOf(lanes.status());
}

TEST(EncodingSpecTest, TheCanonicalTextHasEveryDefault) {
  const std::pair<const char*, const char*> cases[] = {
      {"full+int4", "full+int4:rows=64,n_sink=4,recent=32"},
      {"full+int8:rows=32", "full+int8:rows=32,n_sink=4,recent=16"},
      {"full+int8/int4:n_sink=0", "full+int8/int4:rows=64,n_sink=0,recent=32"},
      {"full+tm64", "full+tm64:k_bits=3.25,v_bits=2.75,n_sink=4,recent=32,profile=off"},
      {"full+tm32:v_bits=0.5,recent=0",
       "full+tm32:k_bits=3.25,v_bits=0.5,n_sink=4,recent=0,profile=off"},
      {"full+f16/tm64", "full+as_written/tm64:v_bits=2.75,n_sink=4,recent=32,profile=off"},
      {"full+tm64/int4", "full+tm64/int4:k_bits=3.25,n_sink=4,recent=32,profile=off"},
      {"tova:max_capacity=9+f16/rot2",
       "tova:max_capacity=9,evict_interval=64,start_size=0+as_written/rot2"},
      {"full+as_written", "full"},
      {"full+f16", "full"},
      {"window:size=9+int4", "window:size=9,positions=original+int4:rows=64,recent=32"}};
  for (const auto& [spec, canonical] : cases) {
    EXPECT_EQ(Canonical(spec, Context()), canonical) << spec;
    EXPECT_EQ(Canonical(canonical, Context()), canonical) << spec;
  }
  // Kept rows: there is no window that waits.
  EXPECT_THAT(Canonical("sepllm+int4", Context()), HasSubstr("+int4:rows=64,n_sink=4"));
  EXPECT_THAT(Canonical("fixllm+int4:recent=9", Context()), HasSubstr("recent does not apply"));
}

TEST(EncodingSpecTest, BadOnesAreNamedWithTheirBound) {
  const std::pair<const char*, const char*> cases[] = {
      {"full+int3", "encoding=int3 known=as_written,f16,int8,int4,tm64,tm32,rot3,rot2"},
      {"full+int4/int3", "encoding=int3"},
      {"full+int4/int8/int4", "spec"},
      {"full+int4:k_bits=3", "parameter=k_bits known=rows,n_sink,recent"},
      {"full+int4/tm64:k_bits=3", "k_bits does not apply to int4"},
      {"full+tm64:k_bits=0.4", "k_bits must be a number of 1/64 bits within bounds: value=0.4"},
      {"full+tm64:k_bits=6.1", "max=6"},
      {"full+tm64:v_bits=2.3", "value=2.3"},
      {"full+tm64:v_bits=nan", "value=nan"},
      {"full+tm64:rows=32", "rows does not apply"},
      {"full+tm64/tm32", "as many rows"},
      {"full+int8:rows=16", "value=16 known=32,64"},
      {"full+int8:n_sink=-1", "n_sink"},
      {"streamingllm+int8:n_sink=2", "n_sink does not apply to windows"},
      {"full+tm64:profile=sometimes", "value=sometimes known=on,off,digest"},
      {"full+tm64:profile=0123abcd", "no such profile: profile=0123abcd known=off"},
      {"h2o+int4",
       "can only be encoded one by one: policy=h2o encoding=int4 known=as_written/rot3"},
      {"h2o+rot3", "k=rot3 v=rot3 known=as_written/rot3"},
      {"h2o+rot2/int8", "k=rot2 v=int8 known=as_written/rot2"},
      {"h2o+int8/rot2", "k=int8 v=rot2 known=as_written/rot2"},
      {"h2o+as_written/rot3:rows=64", "parameter=rows"},
      {"sepllm+f16/rot3", "need not be encoded one by one: policy=sepllm encoding=f16/rot3"},
      {"full+as_written/rot2", "policy=full encoding=as_written/rot2 known=int8,int4,tm64,tm32"},
      {"gemfilter+as_written/rot2", "policy=gemfilter"},
      {"gemfilter+int4", "policy=gemfilter"},
      {"infllm+int4", "policy=infllm"},
      {"full:positions=unrotated+int4", "needs=rotated keys"}};
  for (const auto& [spec, text] : cases) {
    PolicyContext context = Context();
    context.prompt_rows = 10;
    EXPECT_THAT(Canonical(spec, context), HasSubstr(text)) << spec;
  }
}

TEST(EncodingSpecTest, TheProfileInUseIsPartOfTheText) {
  PolicyContext context = Context();
  context.profile = "0123abcd";
  const std::string with = "full+tm64:k_bits=3.25,v_bits=2.75,n_sink=4,recent=32,profile=0123abcd";
  EXPECT_EQ(Canonical("full+tm64", context), with);
  EXPECT_EQ(Canonical(with, context), with);
  EXPECT_THAT(Canonical("full+tm64:profile=off", context), HasSubstr("profile=off"));
  EXPECT_THAT(Canonical("full+tm64:profile=0123abce", context), HasSubstr("known=0123abcd"));
}

TEST(EncodingSpecTest, AConfigurationMayNameAProfileThatIsNotKnownYet) {
  EXPECT_TRUE(CheckPolicySpec("full+tm64:profile=0123abcd").ok());
  EXPECT_FALSE(CheckPolicySpec("full+tm64:profile=0123").ok());
}

}  // namespace
}  // namespace kvasir
