// Policies whose state can be saved, of every kind and with random settings, at random points of
// their lives; and states as an attacker may write them, with an envelope that is right.
#ifndef KVASIR_TESTS_POLICIES_STATE_SUBJECTS_H_
#define KVASIR_TESTS_POLICIES_STATE_SUBJECTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/state_codec.h"
#include "policies/policy_registry.h"
#include "policies/policy_state.h"
#include "tests/policies/policy_cases.h"
#include "tests/policies/policy_walk.h"

#include <fmt/format.h>

namespace kvasir::testing {

struct Subject {
  std::string spec;
  PolicyContext context;

  std::unique_ptr<RetentionPolicy> Make() const {
    absl::StatusOr<PolicyLanes> lanes = MakeLanes(spec, context);
    EXPECT_TRUE(lanes.ok()) << spec << " " << lanes.status();
    return std::move(lanes->lanes.at(0));
  }
};

struct SubjectKind {
  std::string name;
  std::function<Subject(Dice&)> make;
};

inline Subject PaddedSepCache(Dice& dice) {
  Case test = StreamCase(dice, /*manager=*/false);
  test.context.pad_id = 0;
  return {test.spec, test.context};
}

// Decisions by keys alone, by interval or once.
inline Subject KeySubject(Dice& dice, const char* name) {
  Subject subject;
  const uint64_t recent = dice.Between(0, 20);
  subject.spec =
      fmt::format("{}{}:max_capacity={},recent_size={},evict_interval={},heads={}",
                  dice.Coin() ? "separators:ids=1/2|" : "", name, recent + dice.Between(1, 40),
                  recent, dice.Between(1, 30), dice.Coin() ? "shared" : "per_head");
  subject.context.prompt_rows = dice.Coin() ? 0 : dice.Between(1, 150);
  return subject;
}

inline const std::vector<SubjectKind>& SubjectKinds() {
  static const auto* kinds = [] {
    auto* list = new std::vector<SubjectKind>;
    for (const Kind& kind : Kinds()) {
      if (std::string(kind.name) == "infllm") continue;  // whose blocks are not its own
      list->push_back({kind.name, [&kind](Dice& dice) {
                         const Case test = kind.make(dice);
                         return Subject{test.spec, test.context};
                       }});
    }
    list->push_back({"sepllm sepcache, padded", PaddedSepCache});
    for (const char* name : {"knorm", "keydiff"}) {
      list->push_back({name, [name](Dice& dice) { return KeySubject(dice, name); }});
    }
    return list;
  }();
  return *kinds;
}

// A policy somewhere in its life. `truncated`: its next call must be NextPlan().
struct Lived {
  std::unique_ptr<RetentionPolicy> policy;
  bool truncated = false;
};

inline Lived Live(const Subject& subject, uint64_t seed, int steps) {
  Lived lived{subject.Make()};
  PolicyWalk walk(lived.policy.get(), seed, /*truncated=*/false);
  walk.Run(steps);
  EXPECT_EQ(walk.violation(), "") << subject.spec << "\n" << walk.trace();
  lived.truncated = walk.truncated();
  return lived;
}

inline std::string BodyOf(std::string_view state) {
  return std::string(OpenState(kPolicyState, "", state).value());
}
inline std::string Sealed(std::string_view body) { return SealState(kPolicyState, "", body); }

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_STATE_SUBJECTS_H_
