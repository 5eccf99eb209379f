// The state of every policy as bytes: what goes on from it, what it takes, and that a stranger's
// bytes are refused or do no harm.
#include "policies/policy_state.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/policies/state_subjects.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::AllOf;
using testing::BodyOf;
using testing::Dice;
using ::testing::HasSubstr;
using testing::Live;
using testing::Lived;
using testing::PolicyWalk;
using testing::Sealed;
using testing::Subject;
using testing::SubjectKind;
using testing::SubjectKinds;

absl::Status Restore(RetentionPolicy& policy, const std::string& bytes, uint64_t rows) {
  return policy.RestoreState(bytes, rows);
}

std::string TextOf(const Subject& subject) {
  return fmt::format("{} prompt_rows {}", subject.spec, subject.context.prompt_rows);
}

// Saved at any point, between any two calls, with any horizon: the restored one answers all that
// follows as the saved one does.
TEST(PolicyStateConformance, EveryLaterCallHasTheSameAnswer) {
  for (const SubjectKind& kind : SubjectKinds()) {
    uint64_t plans = 0;
    for (uint64_t seed = 1; seed <= 120; ++seed) {
      Dice dice(seed);
      const Subject subject = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {}", kind.name, seed, TextOf(subject)));
      const Lived lived = Live(subject, seed, static_cast<int>(dice.Between(0, 60)));
      if (HasFailure()) return;
      const absl::StatusOr<std::string> saved = lived.policy->SaveState();
      ASSERT_TRUE(saved.ok()) << saved.status();
      const auto restored = subject.Make();
      ASSERT_EQ(Restore(*restored, *saved, lived.policy->rows()), absl::OkStatus());
      ASSERT_EQ(restored->SaveState().value(), *saved);
      PolicyWalk a(lived.policy.get(), seed + 1, lived.truncated);
      PolicyWalk b(restored.get(), seed + 1, lived.truncated);
      a.Run(60);
      b.Run(60);
      ASSERT_EQ(a.violation(), "") << a.trace();
      ASSERT_EQ(a.trace(), b.trace());
      plans += static_cast<uint64_t>(std::count(a.trace().begin(), a.trace().end(), '\n'));
    }
    EXPECT_GT(plans, 1000U) << kind.name;
  }
}

// What the policy was before has no part in it.
TEST(PolicyStateConformance, AUsedPolicyGoesOnAsANewOne) {
  for (const SubjectKind& kind : SubjectKinds()) {
    Dice dice(5);
    const Subject subject = kind.make(dice);
    SCOPED_TRACE(fmt::format("{}: {}", kind.name, TextOf(subject)));
    const Lived lived = Live(subject, 5, 40);
    const std::string saved = lived.policy->SaveState().value();
    const auto used = Live(subject, 6, 90).policy;
    ASSERT_EQ(Restore(*used, saved, lived.policy->rows()), absl::OkStatus());
    PolicyWalk a(lived.policy.get(), 7, lived.truncated);
    PolicyWalk b(used.get(), 7, lived.truncated);
    a.Run(100);
    b.Run(100);
    ASSERT_EQ(a.trace(), b.trace());
  }
}

TEST(PolicyStateConformance, WhatIsCutOrGoesOnIsRefusedAndChangesNothing) {
  for (const SubjectKind& kind : SubjectKinds()) {
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      Dice dice(seed);
      const Subject subject = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {}", kind.name, seed, TextOf(subject)));
      const auto policy = Live(subject, seed, 50).policy;
      const uint64_t rows = policy->rows();
      const std::string saved = policy->SaveState().value();
      const auto other = Live(subject, seed + 1, 30).policy;
      const std::string before = other->SaveState().value();
      const std::string body = BodyOf(saved);
      for (size_t at = 0; at < saved.size(); ++at) {
        ASSERT_FALSE(Restore(*other, saved.substr(0, at), rows).ok()) << at;
      }
      for (size_t at = 0; at < body.size(); ++at) {
        ASSERT_FALSE(Restore(*other, Sealed(body.substr(0, at)), rows).ok()) << at;
      }
      for (size_t at = 0; at < saved.size(); ++at) {  // damage, which the checksum finds
        std::string damaged = saved;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << dice.Between(0, 7)));
        ASSERT_FALSE(Restore(*other, damaged, rows).ok()) << at;
      }
      ASSERT_FALSE(Restore(*other, saved + '\0', rows).ok());
      ASSERT_FALSE(Restore(*other, Sealed(body + '\0'), rows).ok());
      ASSERT_FALSE(Restore(*other, saved, rows + 1).ok());
      ASSERT_FALSE(Restore(*other, "", rows).ok());
      ASSERT_EQ(other->SaveState().value(), before);
    }
  }
}

// The state with one change that an attacker may like, behind what it says of its settings: there
// everything else is refused.
std::string Forged(Dice& dice, std::string body, size_t settings, uint64_t rows) {
  const size_t at = dice.Between(settings, body.size() - 1);
  if (dice.Coin() || at + 8 > body.size()) {
    body[at] = static_cast<char>(body[at] ^ (1 << dice.Between(0, 7)));
    return body;
  }
  std::string_view old = std::string_view(body).substr(at);
  const uint64_t interesting[] = {0,
                                  1,
                                  rows - 1,
                                  rows,
                                  rows + 1,
                                  dice.Between(0, rows),
                                  TakeNumber(old) + dice.Between(0, 40) - 20,
                                  uint64_t{1} << dice.Between(0, 63),
                                  kStateRowsMax,
                                  std::numeric_limits<uint64_t>::max()};
  std::string bytes;
  AppendNumber(bytes, interesting[dice.Between(0, std::size(interesting) - 1)]);
  return body.replace(at, 8, bytes);
}

// Forged bytes under a right checksum: refused, or a policy that is saved as it was read and keeps
// every promise, whatever it is asked.
TEST(PolicyStateConformance, ForgedBytesAreRefusedOrDoNoHarm) {
  for (const SubjectKind& kind : SubjectKinds()) {
    uint64_t refused = 0, accepted = 0;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
      Dice dice(seed);
      const Subject subject = kind.make(dice);
      const Lived lived = Live(subject, seed, static_cast<int>(dice.Between(5, 60)));
      const uint64_t rows = lived.policy->rows();
      const std::string body = BodyOf(lived.policy->SaveState().value());
      const auto victim = subject.Make();
      const std::string fresh = BodyOf(victim->SaveState().value());
      size_t settings = 8;  // the rows stand before them
      while (settings + 1 < std::min(body.size(), fresh.size()) &&
             body[settings] == fresh[settings]) {
        ++settings;
      }
      for (int attempt = 0; attempt < 150; ++attempt) {
        const std::string forged = Forged(dice, body, settings, rows);
        if (forged == body) continue;
        const std::string state = Sealed(forged);
        if (!Restore(*victim, state, rows).ok()) {
          ++refused;
          continue;
        }
        ++accepted;
        ASSERT_EQ(victim->SaveState().value(), state) << TextOf(subject);
        PolicyWalk walk(victim.get(), seed, attempt % 2 == 0 || lived.truncated);
        walk.Run(40);
        ASSERT_EQ(walk.violation(), "") << kind.name << " seed " << seed << " attempt " << attempt
                                        << ": " << TextOf(subject) << "\n"
                                        << walk.trace();
      }
    }
    EXPECT_GT(refused, 500U) << kind.name;
    RecordProperty(kind.name, fmt::format("refused {} accepted {}", refused, accepted));
  }
}

TEST(PolicyStateConformance, AnotherPolicysStateIsRefused) {
  struct Saved {
    std::string name, spec, state;
    uint64_t rows = 0;
  };
  std::vector<Saved> states;
  std::vector<Subject> subjects;
  for (const SubjectKind& kind : SubjectKinds()) {
    Dice dice(3 + subjects.size());
    subjects.push_back(kind.make(dice));
    const auto policy = Live(subjects.back(), 3, 50).policy;
    states.push_back(
        {kind.name, subjects.back().spec, policy->SaveState().value(), policy->rows()});
  }
  for (size_t i = 0; i < states.size(); ++i) {
    const auto policy = subjects[i].Make();
    const std::string before = policy->SaveState().value();
    for (size_t j = 0; j < states.size(); ++j) {
      // The lanes of gemfilter are of the class of full.
      const auto is_full = [&](size_t k) {
        return states[k].name == "full" || states[k].name == "gemfilter";
      };
      if (i == j || (is_full(i) && is_full(j))) continue;
      SCOPED_TRACE(states[i].spec + " from " + states[j].spec);
      const absl::Status status = Restore(*policy, states[j].state, states[j].rows);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(MessageOf(status), HasSubstr("expected="));
    }
    EXPECT_EQ(policy->SaveState().value(), before);
  }
}

std::unique_ptr<RetentionPolicy> Make(const std::string& spec, uint64_t prompt_rows = 0) {
  PolicyContext context;
  context.separators = {1, 2};
  context.prompt_rows = prompt_rows;
  return Subject{spec, context}.Make();
}

// Appended as an engine does, with plans taken as they come.
std::unique_ptr<RetentionPolicy> Grown(const std::string& spec, uint64_t rows,
                                       uint64_t prompt_rows = 0) {
  auto policy = Make(spec, prompt_rows);
  const auto take = [&policy] {
    while (policy->NextPlan({64, 128})) continue;
  };
  take();
  while (policy->rows() < rows) {
    policy->Append(std::vector<TokenId>(1, policy->rows() % 10 == 0 ? 1 : 7));
    take();
  }
  return policy;
}

TEST(PolicyStateTest, ASettingThatDiffersIsNamed) {
  struct Pair {
    const char *saved, *other, *message;
    uint64_t prompt_rows = 100;
  };
  const Pair pairs[] = {
      {"full", "streamingllm", "of another policy: policy=full expected=streamingllm"},
      {"streamingllm:start_size=4", "streamingllm:start_size=5", "start_size=4 expected=5"},
      {"streamingllm:recent_size=64", "streamingllm:recent_size=65", "recent_size=64 expected=65"},
      {"streamingllm", "streamingllm:positions=original", "in_cache=1 expected=0"},
      {"sepllm:local_size=64", "sepllm:local_size=65", "window=64 expected=65"},
      {"sepllm:init_cache_size=4", "sepllm:init_cache_size=3", "rule="},
      {"sepllm:separators=1", "sepllm:separators=1/3", "rule="},
      {"sepllm:local_size=64,prefill_local_size=9", "sepllm:local_size=64,prefill_local_size=8",
       "prefill_window=9 expected=8"},
      {"sepllm", "sepllm+int8", "record_rows=0 expected=64"},
      {"sepllm+int8:n_sink=1", "sepllm+int8:n_sink=2", "n_sink=1 expected=2"},
      {"window:size=100+int8", "window:size=100", "policy=encoded expected=stay"},
      {"full+int8:recent=9", "full+int8:recent=8", "recent=9 expected=8"},
      {"sepllm:form=manager", "sepllm:form=sepcache,positions=in_cache",
       "policy=manager expected=sepcache"},
      {"sepllm:form=manager", "sepllm:form=manager,sep_cache_size=127", "sep_cache_size=128"},
      {"sepllm:form=manager", "sepllm:form=manager,separators=2", "separators="},
      {"sepllm:form=manager", "sepllm:form=manager,use_max_sep_cache=false", "use_max_sep_cache=1"},
      {"knorm", "keydiff", "score_source=3 expected=4"},
      {"knorm", "knorm:max_capacity=1023", "budget=1024 expected=1023"},
      {"knorm", "knorm:start_size=1", "selector="},
      {"knorm", "separators|knorm", "selector="},
      {"knorm", "knorm:evict_interval=63", "interval=64 expected=63", 0},
  };
  for (const Pair& pair : pairs) {
    const auto saved = Make(pair.saved, pair.prompt_rows);
    const absl::Status status =
        Make(pair.other, pair.prompt_rows)->RestoreState(*saved->SaveState(), 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << pair.saved;
    EXPECT_THAT(MessageOf(status), HasSubstr(pair.message)) << pair.saved << " in " << pair.other;
  }
}

// Where the length of the prompt decides nothing, prompts of other lengths share a state.
TEST(PolicyStateTest, TheLengthOfThePromptIsComparedWhereItDecides) {
  for (const char* spec : {"sepllm", "sepllm:form=manager", "full+int8", "streamingllm"}) {
    const auto saved = Make(spec, 100);
    EXPECT_EQ(Make(spec, 200)->RestoreState(*saved->SaveState(), 0), absl::OkStatus()) << spec;
  }
  for (const char* spec : {"sepllm:prefill_local_size=9", "sepllm:form=sepcache"}) {
    const auto saved = Make(spec, 100);
    EXPECT_THAT(MessageOf(Make(spec, 200)->RestoreState(*saved->SaveState(), 0)),
                HasSubstr("prompt_rows=100 expected=200"))
        << spec;
  }
}

TEST(PolicyStateTest, VersionAndRowsAreThoseOfTheState) {
  const auto policy = Grown("sepllm", 300);
  const std::string saved = policy->SaveState().value();
  EXPECT_THAT(MessageOf(policy->RestoreState(saved, 299)), HasSubstr("rows=300 expected=299"));
  EXPECT_THAT(MessageOf(policy->RestoreState(saved, kStateRowsMax + 1)),
              HasSubstr(fmt::format("max={}", kStateRowsMax)));
  StateFormat older = kPolicyState;
  older.version = 0;
  const absl::Status status = policy->RestoreState(SealState(older, "", BodyOf(saved)), 300);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("version=0 expected=1"));
  EXPECT_THAT(MessageOf(policy->RestoreState(SealState(kPolicyState, "x", BodyOf(saved)), 300)),
              HasSubstr("name=x"));
}

TEST(PolicyStateTest, WhatIsNotItsOwnCannotBeSaved) {
  for (const char* spec : {"infllm", "h2o", "tova", "snapkv:max_capacity_prompt=64"}) {
    const auto policy = Make(spec, 100);
    EXPECT_EQ(policy->SaveState().status().code(), absl::StatusCode::kUnimplemented) << spec;
    const std::string foreign = Make("full")->SaveState().value();
    EXPECT_EQ(policy->RestoreState(foreign, 0).code(), absl::StatusCode::kUnimplemented) << spec;
  }
  // A prompt that fits is never scored.
  EXPECT_TRUE(Make("snapkv", 100)->SaveState().ok());
}

TEST(PolicyStateTest, ADecisionThatWaitsForScoresIsSavedButNoneThatIsMade) {
  const auto policy = Grown("knorm:max_capacity=10,evict_interval=5", 15);
  ASSERT_NE(policy->Waiting(), nullptr);
  const std::string saved = policy->SaveState().value();
  const auto restored = Make("knorm:max_capacity=10,evict_interval=5");
  ASSERT_EQ(restored->RestoreState(saved, 15), absl::OkStatus());
  EXPECT_NE(restored->Waiting(), nullptr);
  EXPECT_EQ(restored->DecisionRow(), 15U);
  policy->Decide({{0, 1}});
  EXPECT_EQ(policy->SaveState().status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(policy->NextPlan({}).has_value());
  EXPECT_TRUE(policy->SaveState().ok());
}

// The size follows what the policy still has to decide about, not the length of the text.
TEST(PolicyStateTest, SizesDoNotGrowWithTheText) {
  struct Size {
    const char* spec;
    uint64_t bytes_max;
  };
  // Of a window of 256 rows and a block of 64 every tenth is a separator.
  const Size sizes[] = {{"full", 80},
                        {"streamingllm:recent_size=256", 130},
                        {"window:size=256", 250},
                        {"full+int8", 260},
                        {"streamingllm:recent_size=256+int8", 320},
                        {"sepllm:local_size=256", 250 + 8 * 34},
                        {"sepllm:local_size=256+int8", 250 + 8 * 34},
                        {"sepllm:form=sepcache", 330 + 8 * 128 + 4 * 512},
                        {"sepllm:form=manager", 330 + 8 * 128 + 4 * 512},
                        {"fixllm:local_size=256", 250 + 8 * 68}};
  for (const Size& size : sizes) {
    for (const uint64_t rows : {3000U, 20000U}) {
      const std::string saved = Grown(size.spec, rows, 100)->SaveState().value();
      EXPECT_LE(saved.size(), size.bytes_max) << size.spec << " rows " << rows;
    }
  }
}

}  // namespace
}  // namespace kvasir
