// kvasir-conformance on the engine guide's engine, and on the same with one defect each: every
// defect is found by the check that is there for it.
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/child_process.h"

#include <nlohmann/json.hpp>

namespace kvasir::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using Json = nlohmann::json;

struct Outcome {
  int status = 0;
  std::vector<std::string> lines;
};

Outcome RunConformance(const std::vector<std::string>& options) {
  std::vector<std::string> argv{SiblingProgram("kvasir-conformance")};
  argv.insert(argv.end(), options.begin(), options.end());
  ChildProcess process(argv, {});
  Outcome outcome;
  while (const std::optional<std::string> line = process.ReadLine()) outcome.lines.push_back(*line);
  outcome.status = process.Wait();
  return outcome;
}

std::string Broken(const std::string& defect) {
  return SiblingProgram("broken_engine") + " " + defect;
}

struct Defect {
  const char* name;
  const char* check;
  const char* reason;  // part of it
  const char* patience_ms = "60000";
};

const Defect kDefects[] = {
    {"mute", "hello", "protocol"},
    {"commits_other_ids", "rows", "another id was committed: row=0"},
    {"commits_nothing", "rows", "not all were committed"},
    {"unsteady", "repeat", "other logits"},
    {"computes_otherwise", "memory", "other logits"},
    {"looks_ahead", "batches", "other logits"},
    {"calls_at_every_step", "decode", "it needs the daemon"},
    {"sees_no_kept_rows", "kept", "which keeps every row, is not as full"},
    {"sees_no_sticky_rows", "kept", "which keeps every row, is not as full"},
    {"keeps_pointers", "kept", ""},
    {"sees_everything", "window", "which no layer's view shows"},
    {"sees_no_kept_rows", "window", "is not influenced by the id of row 0"},
    {"sees_no_sticky_rows", "sticky", "is not influenced by the separator"},
    {"sees_no_kept_rows", "sticky", "is not influenced by the separator"},
    {"first_layer_for_all", "layers", "influenced by"},
    {"evicts_by_itself", "covering", "is not as full"},
    {"rotates_at_row", "positions", "rotated elsewhere"},
    {"rotates_keys_by_place", "unrotated", "is not as full"},
    {"forgets_decay", "mass", "other logits"},
    {"forgets_nothing", "truncate", "other"},
    {"asks_for_no_prefix", "prefix", "not opened with a prefix"},
    {"recomputes", "prefix", "computed again"},
    {"begins_anew", "snapshot", "other rows were saved"},
    {"hides_errors", "limit", "as if nothing were"},
    {"leaks", "end", "sequences=3", "4000"},
    {"forks", "kill", "killed after its hello", "4000"},
    {"crashes", "daemon", "signal 6"},
    {"hangs", "daemon", "no answer within 4000 ms", "4000"},
};

TEST(ConformanceTest, TheGuidesEngineHasNoDefect) {
  const Outcome outcome =
      RunConformance({"--engine", SiblingProgram("kvasir-conformance-engine"), "--json"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_GT(outcome.lines.size(), 20U);
  for (const std::string& line : outcome.lines) {
    EXPECT_EQ(Json::parse(line)["verdict"], "ok") << line;
  }
}

class DefectTest : public ::testing::TestWithParam<Defect> {};

TEST_P(DefectTest, IsFoundByTheCheckThatIsThereForIt) {
  const Defect& defect = GetParam();
  const Outcome outcome =
      RunConformance({"--engine", Broken(defect.name), "--only", defect.check, "--json",
                      "--patience-ms", defect.patience_ms, "--deadline-ms", "2000"});
  EXPECT_EQ(outcome.status, 1);
  ASSERT_EQ(outcome.lines.size(), 1U);
  const Json check = Json::parse(outcome.lines[0]);
  EXPECT_EQ(check["check"], defect.check);
  EXPECT_EQ(check["verdict"], "FAILED");
  EXPECT_THAT(check["text"].get<std::string>(), HasSubstr(defect.reason));
}

INSTANTIATE_TEST_SUITE_P(Conformance, DefectTest, ::testing::ValuesIn(kDefects),
                         [](const auto& param) {
                           return std::string(param.param.name) + "_" + param.param.check;
                         });

TEST(ConformanceTest, EveryCheckHasADefectToFind) {
  std::set<std::string> found;
  for (const Defect& defect : kDefects) found.insert(defect.check);
  for (const std::string& line : RunConformance({"--list"}).lines) {
    EXPECT_TRUE(found.contains(line.substr(0, line.find(' ')))) << line;
  }
}

// An engine that knows nothing of devices. (tests/python runs one that does.)
TEST(ConformanceTest, RowsThatDoNotLieOnTheDeviceAreFound) {
  const Outcome outcome = RunConformance({"--engine", SiblingProgram("kvasir-conformance-engine"),
                                          "--device", "host", "--only", "rows", "--only", "mass"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("its rows do not lie on the device")));
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("rows that lie on a device have none: what=deci")));
}

TEST(ConformanceTest, ADeviceThatIsNoneIsTheDaemonsError) {
  const Outcome outcome = RunConformance({"--engine", SiblingProgram("kvasir-conformance-engine"),
                                          "--device", "tpu:0", "--only", "hello"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("tpu:0")));
}

TEST(ConformanceTest, WhatIsNotOfferedIsNotPassed) {
  const Outcome outcome = RunConformance({"--engine", Broken("offers_nothing"), "--only", "prefix",
                                          "--only", "truncate", "--only", "rows"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("not offered prefix")));
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("not offered truncate")));
  EXPECT_THAT(outcome.lines, Contains("1 ok, 0 failed, 2 not offered"));
}

TEST(ConformanceTest, AFailureNamesTheSectionOfTheGuide) {
  const Outcome outcome =
      RunConformance({"--engine", Broken("commits_other_ids"), "--only", "rows"});
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("see docs/engine_guide.md, \"A step\"")));
}

TEST(ConformanceTest, WhatIsNoEngineIsSaidSo) {
  const Outcome outcome =
      RunConformance({"--engine", "sh -c 'read line; echo no'", "--only", "hello"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("not a JSON object")));
  const Outcome missing = RunConformance({"--engine", "/nowhere/engine", "--only", "hello"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.lines, Contains(HasSubstr("exit status 127")));
}

TEST(ConformanceTest, WrongUsageIsToldApart) {
  EXPECT_EQ(RunConformance({}).status, 2);
  EXPECT_EQ(RunConformance({"--engine", "true", "--only", "nothing"}).status, 2);
  EXPECT_EQ(RunConformance({"--engine", "true", "--tolerance", "7"}).status, 2);
  const Outcome outcome =
      RunConformance({"--engine", "true", "--daemon", "/nowhere", "--only", "hello"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.lines, Contains(HasSubstr("kvasird does not serve")));
}

}  // namespace
}  // namespace kvasir::testing
