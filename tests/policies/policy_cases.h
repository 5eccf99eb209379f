// Random settings of every policy that needs no scores, each with a slow and obvious model.
#ifndef KVASIR_TESTS_POLICIES_POLICY_CASES_H_
#define KVASIR_TESTS_POLICIES_POLICY_CASES_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "policies/policy_registry.h"
#include "policies/sep_static.h"
#include "policies/sep_stream.h"
#include "tests/policies/policy_simulator.h"

#include <fmt/format.h>

namespace kvasir::testing {

// One random setting: the spec, its context, and the model of the same setting.
struct Case {
  std::string spec;
  PolicyContext context;
  Model model;
};

// Keys in cache order; distance in the cache, or between the rows.
inline SeenKeys Keys(const std::vector<uint64_t>& rows, bool in_cache) {
  SeenKeys keys;
  for (size_t i = 0; i < rows.size(); ++i) {
    keys.push_back({rows[i], in_cache ? rows.size() - 1 - i : rows.back() - rows[i]});
  }
  return keys;
}

inline Model RuleModel(std::function<bool(uint64_t, uint64_t, TokenId)> sees, bool in_cache) {
  return [=](const std::vector<TokenId>& ids) {
    std::vector<SeenKeys> all;
    for (uint64_t i = 0; i < ids.size(); ++i) {
      std::vector<uint64_t> rows;
      for (uint64_t j = 0; j <= i; ++j) {
        if (sees(i, j, ids[j])) rows.push_back(j);
      }
      all.push_back(Keys(rows, in_cache));
    }
    return all;
  };
}

inline Model StreamModel(const SepStreamConfig& config, uint64_t prompt_rows, bool in_cache) {
  return [=](const std::vector<TokenId>& ids) {
    SepStream stream(config);
    std::vector<SeenKeys> all;
    const bool sepcache = config.variant == SepStreamVariant::kSepCache;
    uint64_t at = 0;
    if (sepcache) {
      at = std::min<uint64_t>(prompt_rows, ids.size());
      std::vector<uint64_t> rows;
      for (uint64_t i = 0; i < at; ++i) {
        rows.push_back(i);
        all.push_back(Keys(rows, in_cache));
      }
      const std::vector<TokenId> prompt(ids.begin(), ids.begin() + static_cast<int64_t>(at));
      EXPECT_TRUE(stream.Step({{prompt}}, true).ok());
    }
    for (; at < ids.size(); ++at) {
      std::vector<uint64_t> rows = stream.KeptRows(0);
      rows.push_back(at);
      EXPECT_TRUE(stream.Step({{{ids[at]}}}, false).ok());
      if (sepcache) rows = stream.KeptRows(0);
      all.push_back(Keys(rows, in_cache));
    }
    return all;
  };
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t Between(uint64_t low, uint64_t high) { return low + random_() % (high - low + 1); }
  bool Coin() { return Between(0, 1) == 1; }

 private:
  std::mt19937_64 random_;
};

inline Case FullCase(Dice&) {
  return {"full", {}, RuleModel([](uint64_t, uint64_t, TokenId) { return true; }, false)};
}

// What is left of the prompt after the selection is a prompt of its own: all of it stays.
inline Case GemFilterCase(Dice& dice) {
  Case test = FullCase(dice);
  test.spec = fmt::format("gemfilter:topk={}", dice.Between(1, 100));
  return test;
}

inline Case StreamingLlmCase(Dice& dice) {
  const uint64_t start = dice.Between(0, 20);
  const uint64_t recent = dice.Between(1, 90);
  const bool in_cache = dice.Coin();
  return {fmt::format("streamingllm:start_size={},recent_size={},positions={}", start, recent,
                      in_cache ? "in_cache" : "original"),
          {},
          RuleModel([=](uint64_t i, uint64_t j, TokenId) { return j < start || i - j < recent; },
                    in_cache)};
}

// The same rows, some of them in records.
inline std::string RandomEncoding(Dice& dice) {
  return fmt::format("int8:rows={},recent={}", dice.Coin() ? 32 : 64, dice.Between(0, 80));
}

inline Case EncodedFullCase(Dice& dice) {
  Case test = FullCase(dice);
  test.spec += fmt::format("+{},n_sink={}", RandomEncoding(dice), dice.Between(0, 20));
  return test;
}

inline Case EncodedStreamingLlmCase(Dice& dice) {
  Case test = StreamingLlmCase(dice);
  const uint64_t start = dice.Between(0, 20);
  const uint64_t recent = dice.Between(1, 250);
  const bool in_cache = dice.Coin();
  test.spec = fmt::format("streamingllm:start_size={},recent_size={},positions={}+{}", start,
                          recent, in_cache ? "in_cache" : "original", RandomEncoding(dice));
  test.model = RuleModel(
      [=](uint64_t i, uint64_t j, TokenId) { return j < start || i - j < recent; }, in_cache);
  return test;
}

inline Case StaticCase(Dice& dice, const std::vector<TokenId>& separators = {1, 2}) {
  SepStaticConfig config;
  config.init = dice.Between(0, 6);
  config.window = dice.Between(1, dice.Coin() ? 5 : 90);
  config.prefill_window = dice.Coin() ? config.window : dice.Between(1, 90);
  config.prefill_len = dice.Between(0, 200);
  config.separators = SeparatorSet(separators);
  Case result;
  result.spec = fmt::format("sepllm:init_cache_size={},local_size={}", config.init, config.window);
  if (config.prefill_window != config.window) {
    result.spec += fmt::format(",prefill_local_size={}", config.prefill_window);
  }
  result.context.separators = separators;
  result.context.prompt_rows = config.prefill_len;
  const SepStaticRule rule(config, {});
  // Kept and sticky rows come before the window: initial rows and separators are the older ones.
  result.model =
      RuleModel([rule](uint64_t i, uint64_t j, TokenId id) { return rule.Sees(i, j, id); }, false);
  return result;
}

inline Case StreamCase(Dice& dice, bool manager) {
  SepStreamConfig config;
  config.variant = manager ? SepStreamVariant::kManager : SepStreamVariant::kSepCache;
  config.a = static_cast<int64_t>(dice.Between(0, 6));
  config.s = static_cast<int64_t>(dice.Between(1, 20));
  config.w = static_cast<int64_t>(dice.Between(1, dice.Coin() ? 4 : 50));
  config.c = config.a + config.s + config.w + static_cast<int64_t>(dice.Between(1, 40));
  config.accumulate = dice.Between(0, 3) != 0;
  config.use_max = dice.Between(0, 3) != 0;
  config.separators = SeparatorSet({1, 2});
  const bool in_cache = dice.Coin();
  Case result;
  result.spec = fmt::format(
      "sepllm:form={},init_cache_size={},sep_cache_size={},local_size={},cache_size={},"
      "sep_accumulation={},use_max_sep_cache={},positions={}",
      manager ? "manager" : "sepcache", config.a, config.s, config.w, config.c, config.accumulate,
      config.use_max, in_cache ? "in_cache" : "original");
  result.context.separators = {1, 2};
  result.context.prompt_rows = dice.Between(0, 150);
  result.model = StreamModel(config, result.context.prompt_rows, in_cache);
  return result;
}

const char* RandomPositions(Dice& dice) { return dice.Coin() ? "original" : "unrotated"; }

inline Case FixLlmCase(Dice& dice) {
  const uint64_t init = dice.Between(0, 6);
  const uint64_t local = dice.Between(1, dice.Coin() ? 5 : 90);
  const uint64_t delta = dice.Between(1, 9);
  return {fmt::format("fixllm:init_cache_size={},local_size={},delta={},positions={}", init, local,
                      delta, RandomPositions(dice)),
          {},
          RuleModel(
              [=](uint64_t i, uint64_t j, TokenId) {
                return j < init || i - j < local || (j - init) % delta == delta - 1;
              },
              false)};
}

// Any of the rules, in any number, before a window.
inline Case WindowCase(Dice& dice) {
  const uint64_t sinks = dice.Between(0, 5);
  const uint64_t stride = dice.Between(0, 7);
  const uint64_t start = dice.Between(0, 20);
  const bool separators = dice.Coin();
  const uint64_t size = dice.Between(1, dice.Coin() ? 5 : 90);
  Case result;
  if (sinks > 0) result.spec += fmt::format("sinks:size={}|", sinks);
  if (separators) result.spec += "separators:ids=1/2|";
  if (stride > 0) result.spec += fmt::format("stride:start={},size={}|", start, stride);
  result.spec += fmt::format("window:size={},positions={}", size, RandomPositions(dice));
  result.model = RuleModel(
      [=](uint64_t i, uint64_t j, TokenId id) {
        const bool is_separator = separators && (id == 1 || id == 2);
        const bool on_stride = stride > 0 && j >= start && (j - start) % stride == stride - 1;
        return j < sinks || is_separator || on_stride || i - j < size;
      },
      false);
  return result;
}

// What is in view without a lookup: initial rows, the remainder and the window.
inline Case InfLlmCase(Dice& dice) {
  const uint64_t init = dice.Between(0, 20);
  const uint64_t local = dice.Between(2, 60);
  const uint64_t block = dice.Between(1, 40);
  Case test;
  test.spec = fmt::format("infllm:n_init={},n_local={},block_size={},repr_topk=1,exc_block_size=1",
                          init, local, block);
  test.model = [=](const std::vector<TokenId>& ids) {
    std::vector<SeenKeys> all;
    for (uint64_t i = 0; i < ids.size(); ++i) {
      uint64_t sealed_end = init;
      while (sealed_end + block + local <= i) sealed_end += block;
      const bool any = sealed_end > init;
      SeenKeys keys;
      for (uint64_t j = 0; j <= i; ++j) {
        if (any && j >= init && j < sealed_end) continue;
        keys.push_back({j, i - j < local ? i - j : local - 1});
      }
      all.push_back(std::move(keys));
    }
    return all;
  };
  return test;
}

// The same rows as `test`, the kept ones in records: tables end at other rows.
inline Case EncodedKept(Dice& dice, Case test) {
  test.spec += fmt::format("+int8:rows={},n_sink={}", dice.Coin() ? 32 : 64, dice.Between(0, 9));
  return test;
}

// Without rules the window's rows lie in records, with them the kept ones.
inline Case EncodedWindowCase(Dice& dice) {
  if (dice.Coin()) {
    Case test = WindowCase(dice);
    test.spec.resize(test.spec.find(",positions="));  // rotated, as rows in records must be
    if (test.spec.find('|') != std::string::npos) return EncodedKept(dice, std::move(test));
  }
  const uint64_t size = dice.Between(1, 250);
  return {fmt::format("window:size={}+{}", size, RandomEncoding(dice)),
          {},
          RuleModel([=](uint64_t i, uint64_t j, TokenId) { return i - j < size; }, false)};
}

// Many rows stay, so that records fill; the window may change behind the prompt.
inline Case EncodedStaticCase(Dice& dice) {
  return EncodedKept(dice, StaticCase(dice, {1, 2, 3, 4, 5, 6, 7}));
}

inline Case EncodedFixLlmCase(Dice& dice) {
  Case test = FixLlmCase(dice);
  test.spec.resize(test.spec.find(",positions="));  // rotated, as rows in records must be
  return EncodedKept(dice, std::move(test));
}

struct Kind {
  const char* name;
  std::function<Case(Dice&)> make;
};

inline const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {
      {"full", FullCase},
      {"full, encoded", EncodedFullCase},
      {"streamingllm", StreamingLlmCase},
      {"streamingllm, encoded", EncodedStreamingLlmCase},
      {"sepllm static", [](Dice& dice) { return StaticCase(dice); }},
      {"sepllm static, encoded", EncodedStaticCase},
      {"sepllm sepcache", [](Dice& dice) { return StreamCase(dice, false); }},
      {"sepllm manager", [](Dice& dice) { return StreamCase(dice, true); }},
      {"sepllm manager, encoded",
       [](Dice& dice) { return EncodedKept(dice, StreamCase(dice, true)); }},
      {"fixllm", FixLlmCase},
      {"fixllm, encoded", EncodedFixLlmCase},
      {"window", WindowCase},
      {"window, encoded", EncodedWindowCase},
      {"gemfilter", GemFilterCase},
      {"infllm", InfLlmCase},
  };
  return kinds;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_POLICY_CASES_H_
