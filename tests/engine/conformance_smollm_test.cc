// kvasir-conformance on the reference engine with a real model: thirty layers, f16 rows.
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/engine_support.h"
#include "tests/support/child_process.h"

namespace kvasir::engine::testing {
namespace {

using kvasir::testing::ChildProcess;
using kvasir::testing::SiblingProgram;

TEST(ConformanceSmolLmTest, TheReferenceEngineHasNoDefect) {
  const std::optional<std::string> model = SmolLmPath();
  if (!model) GTEST_SKIP() << "no model: ./dev setup fetches it";
  // Expanded weights: products of quantised rows round otherwise in steps of another size.
  const std::string engine =
      SiblingProgram("kvasir-generate") + " -m " + *model + " --weights f32 --conformance";
  ChildProcess process({SiblingProgram("kvasir-conformance"), "--engine", engine}, {});
  std::vector<std::string> lines;
  while (const std::optional<std::string> line = process.ReadLine()) lines.push_back(*line);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(lines, ::testing::Contains("21 ok, 0 failed, 0 not offered"));
}

}  // namespace
}  // namespace kvasir::engine::testing
