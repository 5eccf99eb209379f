// The grammar of policy specs, the registry, and every refusal with its reason.
#include "policies/policy_spec.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/policy_registry.h"
#include "tests/policies/shadowed_policy.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

PolicyContext Context(uint32_t layers = 1) {
  PolicyContext context;
  context.layers = layers;
  context.separators = {13, 11, 30};
  context.prompt_rows = 100;
  return context;
}

std::string Canonical(const std::string& spec, const PolicyContext& context) {
  const auto lanes = MakeLanes(spec, context);
  return lanes.ok() ? lanes->spec : MessageOf(lanes.status());
}

TEST(PolicySpec, CanonicalTextHasEveryDefaultAndReadsBackAsItself) {
  const PolicyContext context = Context(30);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"full", "full"},
      {"full+as_written", "full"},
      {"streamingllm", "streamingllm:start_size=4,recent_size=512,positions=in_cache"},
      {"sepllm",
       "sepllm:form=static,init_cache_size=4,local_size=256,prefill_local_size=256,"
       "separators=13/11/30,positions=original"},
      {"sepllm:form=sepcache,separators=1/2",
       "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=128,local_size=256,cache_size=512,"
       "sep_accumulation=true,use_max_sep_cache=true,separators=1/2,positions=original"},
      {"sepllm:form=manager,sep_cache_size=64,cache_size=800",
       "sepllm:form=manager,init_cache_size=4,sep_cache_size=64,local_size=256,cache_size=800,"
       "sep_accumulation=true,use_max_sep_cache=true,separators=13/11/30,positions=in_cache"},
      {"streamingllm:recent_size=128x15/256x15,positions=original",
       "streamingllm:start_size=4,recent_size=128x15/256x15,positions=original"},
      {"full:positions=original", "full"},
      {"full:positions=unrotated", "full:positions=unrotated"},
      {"fixllm", "fixllm:init_cache_size=4,local_size=256,delta=5,positions=original"},
      {"h2o",
       "h2o:hh_size=1024,recent_size=1024,decay=1,evict_interval=64,start_size=0,heads=per_head"},
      {"h2o:decay=0.25",
       "h2o:hh_size=1024,recent_size=1024,decay=0.25,evict_interval=64,"
       "start_size=0,heads=per_head"},
      {"tova", "tova:max_capacity=1024,evict_interval=64,start_size=0"},
      {"snapkv",
       "snapkv:window_size=32,max_capacity_prompt=2048,kernel_size=5,pooling=avgpool,start_size=0,"
       "heads=per_head"},
      {"knorm:max_capacity=9x10/8x20",
       "knorm:max_capacity=9x10/8x20,recent_size=0,evict_interval=64,start_size=0,heads=per_head"},
      {"keydiff:heads=shared",
       "keydiff:max_capacity=1024,recent_size=0,evict_interval=64,start_size=0,heads=shared"},
      {"gemfilter", "gemfilter:filter_layer=21,topk=1024,kernel_size=5,n_sink=0,n_tail=0"},
      {"separators|sinks|h2o:hh_size=128,recent_size=128",
       "separators:ids=13/11/30|sinks:size=4|h2o:hh_size=128,recent_size=128,decay=1,"
       "evict_interval=64,start_size=0,heads=per_head"},
      {"sinks|separators|stride|window+as_written",
       "sinks:size=4|separators:ids=13/11/30|stride:size=5,start=0|"
       "window:size=256,positions=original"},
  };
  for (const auto& [spec, want] : cases) {
    EXPECT_EQ(Canonical(spec, context), want);
    EXPECT_EQ(Canonical(want, context), want);
  }
}

TEST(PolicySpec, PositionsFollowTheForm) {
  EXPECT_EQ(MakeLanes("full", Context())->positions, PositionMode::kOriginal);
  EXPECT_EQ(MakeLanes("sepllm:form=sepcache", Context())->positions, PositionMode::kOriginal);
  EXPECT_EQ(MakeLanes("sepllm:form=manager", Context())->positions, PositionMode::kInCache);
  EXPECT_EQ(MakeLanes("streamingllm", Context())->positions, PositionMode::kInCache);
  for (const char* name : {"full", "streamingllm", "sepllm", "fixllm", "window"}) {
    const auto lanes = MakeLanes(fmt::format("{}:positions=unrotated", name), Context());
    ASSERT_TRUE(lanes.ok()) << lanes.status();
    EXPECT_EQ(lanes->positions, PositionMode::kUnrotated) << name;
  }
}

TEST(PolicySpec, ListsHaveOneEntryALayer) {
  EXPECT_EQ(*ParsePerLayer("k", "7", 1, 9, 3), (std::vector<uint64_t>{7, 7, 7}));
  EXPECT_EQ(*ParsePerLayer("k", "1/2x2", 1, 9, 3), (std::vector<uint64_t>{1, 2, 2}));
  EXPECT_EQ(FormatPerLayer({1, 2, 2}), "1/2x2");
  EXPECT_EQ(FormatPerLayer({5, 5}), "5");
  EXPECT_THAT(MessageOf(ParsePerLayer("k", "1/2", 1, 9, 3).status()),
              AllOf(HasSubstr("k "), HasSubstr("entries=2"), HasSubstr("layers=3")));
  EXPECT_THAT(MessageOf(ParsePerLayer("k", "1x65536/1x65536/1x65536", 1, 9, 3).status()),
              HasSubstr("layers=3"));
}

TEST(PolicySpec, EveryRefusalNamesTheParameterAndTheBound) {
  struct Refusal {
    std::string spec;
    std::vector<std::string> words;
  };
  const std::vector<Refusal> refusals = {
      {"", {"name"}},
      {"Full", {"name"}},
      {"h3o", {"policy=h3o", "known=full,streamingllm,sepllm,fixllm,window,h2o,"}},
      {"full:x=1", {"parameter=x", "known=positions"}},
      {"streamingllm:window=1", {"parameter=window", "known=start_size,recent_size,positions"}},
      {"streamingllm:recent_size", {"key=value"}},
      {"streamingllm:recent_size=", {"key=value"}},
      {"streamingllm:", {"key=value"}},
      {"streamingllm:recent_size=1,,start_size=1", {"key=value"}},
      {"streamingllm:recent_size=1,recent_size=2", {"twice", "recent_size"}},
      {"streamingllm:recent_size=0", {"recent_size", "value=0", "min=1"}},
      {"streamingllm:recent_size=-1", {"recent_size", "value=-1", "min=1"}},
      {"streamingllm:recent_size=1e3", {"recent_size", "value=1e3"}},
      {"streamingllm:recent_size=99999999999999999999", {"recent_size", "max=2147483648"}},
      {"streamingllm:recent_size=2147483649", {"recent_size", "max=2147483648"}},
      {"streamingllm:recent_size=1/2/3", {"recent_size", "entries=3", "layers=2"}},
      {"streamingllm:recent_size=8x0/4x2", {"repetition of recent_size", "min=1"}},
      {"streamingllm:recent_size=8x99999999", {"repetition of recent_size", "max=65536"}},
      {"streamingllm:positions=shifted", {"positions", "known=original,in_cache,unrotated"}},
      {"full:positions=in_cache", {"positions", "known=original,unrotated"}},
      {"sepllm:form=manager,positions=unrotated", {"positions", "known=original,in_cache"}},
      {"fixllm:delta=0", {"delta", "value=0", "min=1"}},
      {"h2o:hh_size=0", {"hh_size", "value=0", "min=1"}},
      {"h2o:decay=0", {"decay", "value=0", "above=0", "max=1"}},
      {"h2o:decay=1.01", {"decay", "value=1.01"}},
      {"h2o:decay=nan", {"decay", "value=nan"}},
      {"h2o:decay=1x", {"decay", "value=1x"}},
      {"h2o:evict_interval=0", {"evict_interval", "min=1"}},
      {"h2o:hh_size=8/4,start_size=5", {"start_size", "hh_size", "layer=1", "hh_size=4"}},
      {"tova:max_capacity=1", {"max_capacity", "min=2"}},
      {"tova:max_capacity=4,start_size=4", {"start_size=4", "max_capacity=4"}},
      {"tova:heads=shared", {"parameter=heads", "known=max_capacity"}},
      {"snapkv:kernel_size=4", {"kernel_size", "odd", "value=4"}},
      {"snapkv:kernel_size=1025", {"kernel_size", "max=1023"}},
      {"snapkv:pooling=minpool", {"pooling", "known=avgpool,maxpool"}},
      {"snapkv:window_size=32,max_capacity_prompt=64/32", {"layer=1", "max_capacity_prompt=32"}},
      {"snapkv:heads=both", {"heads", "known=per_head,shared"}},
      {"knorm:max_capacity=4,recent_size=4", {"recent_size=4", "max_capacity=4"}},
      {"keydiff:max_capacity=4,recent_size=3,start_size=2", {"start_size", "max_capacity=4"}},
      {"gemfilter:filter_layer=2", {"filter_layer", "value=2", "max=1"}},
      {"gemfilter:topk=0", {"topk", "min=1"}},
      {"gemfilter:topk=8,n_sink=4,n_tail=5", {"n_sink=4", "n_tail=5", "topk=8"}},
      {"sinks|gemfilter", {"policy=gemfilter", "rule=sinks", "known=window,h2o,"}},
      {"|window", {"name"}},
      {"sinks|", {"name"}},
      {"sinks", {"policy=sinks", "known=full,"}},
      {"window|window", {"rule=window", "known=sinks,separators,stride"}},
      {"sinks|sinks:size=9|window", {"twice", "rule=sinks"}},
      {"sinks:count=4|window", {"parameter=count", "known=size"}},
      {"sinks:size=0|window", {"size", "min=1"}},
      {"separators:ids=x|window", {"ids", "value=x"}},
      {"stride:size=5|full", {"policy=full", "rule=stride", "known=window,h2o,"}},
      {"sepllm:form=dynamic", {"form", "known=static,sepcache,manager"}},
      {"sepllm:positions=in_cache", {"positions=in_cache", "form=static"}},
      {"sepllm:cache_size=9", {"cache_size", "form=static"}},
      {"sepllm:form=manager,prefill_local_size=9", {"prefill_local_size", "form=manager"}},
      {"sepllm:form=manager,init_cache_size=4,sep_cache_size=4,local_size=8,cache_size=16",
       {"layer=0", "init_cache_size=4", "sep_cache_size=4", "local_size=8", "cache_size=16"}},
      {"sepllm:form=sepcache,sep_cache_size=0", {"sep_cache_size", "min=1"}},
      {"sepllm:form=sepcache,local_size=256/508", {"layer=1", "local_size=508"}},
      {"sepllm:form=manager,use_max_sep_cache=1", {"use_max_sep_cache", "true or false"}},
      {"sepllm:separators=13/", {"separators"}},
      {"sepllm:separators=4294967296", {"separators", "max=4294967295"}},
      {"full+", {"'+'"}},
      {"full+int3", {"encoding=int3", "known=as_written"}},
      {std::string(5000, 'a'), {"bytes=5000", "max=4096"}},
  };
  for (const Refusal& refusal : refusals) {
    const auto lanes = MakeLanes(refusal.spec, Context(2));
    ASSERT_EQ(lanes.status().code(), absl::StatusCode::kInvalidArgument) << refusal.spec;
    for (const std::string& word : refusal.words) {
      EXPECT_THAT(MessageOf(lanes.status()), HasSubstr(word));
    }
  }
  EXPECT_THAT(MessageOf(MakeLanes("sepllm", PolicyContext{}).status()), HasSubstr("separators"));
  EXPECT_THAT(MessageOf(MakeLanes("full", Context(0)).status()), HasSubstr("layers=0 min=1"));
}

TEST(PolicySpec, GemFilterChoosesTokensOfThePromptAndKeepsThemAll) {
  const auto lanes =
      MakeLanes("gemfilter:topk=256,n_sink=4,n_tail=32,filter_layer=15,kernel_size=7", Context(30));
  ASSERT_TRUE(lanes.ok()) << lanes.status();
  EXPECT_EQ(lanes->selection, (GemFilterSpec{15, 256, 7, 4, 32}));
  EXPECT_EQ(lanes->lanes.front()->Needs().source, ScoreSource::kNone);
  EXPECT_EQ(MakeLanes("gemfilter", Context(1))->selection->filter_layer, 0u);
  EXPECT_EQ(MakeLanes("gemfilter", Context(32))->selection->filter_layer, 22u);
  EXPECT_FALSE(MakeLanes("full", Context())->selection.has_value());
}

TEST(PolicySpec, LayersMayHaveBudgetsOfTheirOwn) {
  const auto lanes = MakeLanes("h2o:hh_size=8/4/8,recent_size=2", Context(3));
  ASSERT_TRUE(lanes.ok()) << lanes.status();
  ASSERT_EQ(lanes->lanes.size(), 2u);
  EXPECT_EQ(lanes->lane_of_layer, (std::vector<uint32_t>{0, 1, 0}));
  EXPECT_EQ(lanes->lanes[0]->Needs().kept_rows_max, 8u);
  EXPECT_EQ(lanes->lanes[1]->Needs().kept_rows_max, 4u);
}

TEST(PolicySpec, SnapKvMustKnowThePrompt) {
  PolicyContext context = Context();
  context.prompt_rows = 0;
  const auto lanes = MakeLanes("snapkv", context);
  EXPECT_EQ(lanes.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(lanes.status()), HasSubstr("prompt_rows=0 min=1"));
  EXPECT_TRUE(MakeLanes("knorm", context).ok());
}

TEST(PolicySpec, AConfigurationTakesWhatSomeModelCouldTake) {
  for (const char* spec :
       {"full", "snapkv", "infllm", "gemfilter:filter_layer=21,topk=256",
        "sepllm:local_size=128x15/256x15", "sinks|separators|h2o:hh_size=64/128,recent_size=8"}) {
    EXPECT_TRUE(CheckPolicySpec(spec).ok()) << spec;
  }
  const std::pair<const char*, const char*> refused[] = {
      {"sepllm:local_size=128x15/256x15,init_cache_size=4/4", "entries=2 layers=30"},
      {"sepllm:local_size=128x15/256x15,init_cache_size=4/4x2", "entries=3 layers=30"},
      {"h2o:hh_size=1x65536/1", "min=1 max=65536"},
      {"h2o:hh_size=1x0", "min=1 max=65536"},
      {"gemfilter:filter_layer=70000", "max=65535"},
      {"nonsense", "unknown policy"}};
  for (const auto& [spec, message] : refused) {
    EXPECT_THAT(MessageOf(CheckPolicySpec(spec)), HasSubstr(message)) << spec;
  }
}

TEST(PolicySpec, ResultsOfQueriesAreNotShareable) {
  const std::vector<std::string> by_query = {"h2o", "tova", "snapkv", "gemfilter", "infllm"};
  for (const PolicyInfo& info : Policies()) {
    const bool expected = std::count(by_query.begin(), by_query.end(), info.name) == 0;
    EXPECT_EQ(info.shareable, expected) << info.name;
  }
}

TEST(PolicySpec, TheFullTextMustBeReadableToo) {
  std::string ids = "1";
  while (ids.size() < 4060) ids += "/1";
  EXPECT_THAT(Canonical("sepllm:separators=" + ids, Context()), HasSubstr("too long: bytes="));
}

// The table of contents of combinations: the same rule by another name.
TEST(PolicySpec, CompositionsEqualTheNamedPolicies) {
  const std::vector<std::pair<std::string, std::string>> same = {
      {"sinks:size=3|separators|window:size=20", "sepllm:init_cache_size=3,local_size=20"},
      {"sinks:size=3|stride:size=4,start=3|window:size=20",
       "fixllm:init_cache_size=3,local_size=20,delta=4"},
  };
  for (const auto& [left, right] : same) {
    auto a = MakeLanes(left, Context());
    auto b = MakeLanes(right, Context());
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    const PlanHorizon horizon{.slots_per_block = 16, .lead_rows = 32};
    uint64_t plans = 0;
    for (TokenId row = 0; row < 400; ++row) {
      const TokenId id = row % 31;
      a->lanes[0]->Append({&id, 1});
      b->lanes[0]->Append({&id, 1});
      while (const auto plan = a->lanes[0]->NextPlan(horizon)) {
        const auto other = b->lanes[0]->NextPlan(horizon);
        ASSERT_TRUE(other.has_value());
        testing::ExpectSamePlan(*plan, *other);
        ++plans;
      }
      ASSERT_FALSE(b->lanes[0]->NextPlan(horizon).has_value());
    }
    EXPECT_GT(plans, 20u);
  }
}

// A policy remembers until when nothing is due: for this horizon, and this past.
TEST(PolicySpec, QuietRowsEndWithAnotherHorizonOrATruncation) {
  auto lanes = MakeLanes("sinks:size=3|separators|window:size=20", Context());
  ASSERT_TRUE(lanes.ok()) << lanes.status();
  RetentionPolicy& policy = *lanes->lanes[0];
  const PlanHorizon near{.slots_per_block = 16, .lead_rows = 0};
  EXPECT_EQ(policy.NextPlan(near)->until_row, 20u);
  policy.Append(std::vector<TokenId>(12, 7));
  EXPECT_FALSE(policy.NextPlan(near).has_value());
  auto other = policy.Clone();
  EXPECT_EQ(other->NextPlan({.slots_per_block = 16, .lead_rows = 32})->until_row, 32u);
  other = policy.Clone();
  ASSERT_TRUE(other->Truncate(11).ok());
  EXPECT_TRUE(other->NextPlan(near).has_value());
  // Rows that arrive at once end it too, by the window as by a block that is free.
  policy.Append(std::vector<TokenId>(7, 7));
  EXPECT_FALSE(policy.NextPlan(near).has_value());
  policy.Append(std::vector<TokenId>(1, 7));
  EXPECT_EQ(policy.NextPlan(near)->from_row, 0u);
  EXPECT_FALSE(policy.NextPlan(near).has_value());
  policy.Append(std::vector<TokenId>(14, 7));
  EXPECT_FALSE(policy.NextPlan(near).has_value());
  policy.Append(std::vector<TokenId>(1, 7));
  EXPECT_EQ(policy.NextPlan(near)->recent_first, 16u);
}

TEST(PolicySpec, TheDtypeOfTheModelIsAsWritten) {
  PolicyContext context = Context();
  context.dtype = "f16";
  EXPECT_EQ(Canonical("full+f16", context), "full");
  EXPECT_THAT(Canonical("full+f32", context), HasSubstr("known=as_written,f16"));
}

TEST(PolicySpec, RegistryDescribesEveryParameter) {
  for (const PolicyInfo& rule : StayRules()) {
    EXPECT_FALSE(rule.summary.empty());
    for (const PolicyParameterInfo& parameter : rule.parameters) {
      EXPECT_FALSE(parameter.bounds.empty()) << rule.name << " " << parameter.name;
      EXPECT_FALSE(parameter.description.empty()) << rule.name << " " << parameter.name;
    }
    const auto lanes = MakeLanes(rule.name + "|window", Context());
    EXPECT_TRUE(lanes.ok()) << lanes.status();
  }
  for (const PolicyInfo& info : Policies()) {
    EXPECT_FALSE(info.summary.empty());
    EXPECT_FALSE(info.needs.empty());
    for (const PolicyParameterInfo& parameter : info.parameters) {
      EXPECT_FALSE(parameter.bounds.empty()) << info.name << " " << parameter.name;
      EXPECT_FALSE(parameter.description.empty()) << info.name << " " << parameter.name;
      if (parameter.default_value.empty()) continue;
      // A default, written out, changes nothing (for a form in which the parameter has a meaning).
      const std::string form =
          info.name == "sepllm" && parameter.name != "form" ? "form=manager," : "";
      const auto lanes = MakeLanes(
          fmt::format("{}:{}{}={}", info.name, form, parameter.name, parameter.default_value),
          Context());
      EXPECT_TRUE(lanes.ok()) << lanes.status();
    }
  }
}

TEST(PolicySpec, StreamingFormsKeepPlansAheadAndFloorsLow) {
  auto lanes = MakeLanes(
      "sepllm:form=manager,init_cache_size=2,sep_cache_size=4,local_size=100,cache_size=200",
      Context());
  ASSERT_TRUE(lanes.ok()) << lanes.status();
  RetentionPolicy& policy = *lanes->lanes[0];
  const PlanHorizon horizon{.slots_per_block = 16, .lead_rows = 50};
  EXPECT_EQ(policy.NextPlan(horizon)->until_row, 201u);  // row 200 makes the cache 201 long
  policy.Append(std::vector<TokenId>(150, 13));
  EXPECT_FALSE(policy.NextPlan(horizon).has_value());
  EXPECT_EQ(policy.RollbackFloor(), 0u);
  policy.Append(std::vector<TokenId>(1, 13));
  const auto plan = policy.NextPlan(horizon);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->from_row, 201u);
  EXPECT_EQ(plan->recent_first, 101u);
  EXPECT_EQ(policy.RollbackFloor(), 101u);  // the plan lies ahead: only what it moved is fixed
  policy.Append(std::vector<TokenId>(60, 7));
  EXPECT_EQ(policy.RollbackFloor(), 201u);  // now the table before it is gone
}

}  // namespace
}  // namespace kvasir
