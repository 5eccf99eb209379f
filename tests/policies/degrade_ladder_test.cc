// Ladders: what is one, and every refusal with its rung and reason.
#include "policies/degrade_ladder.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Ladder = std::vector<std::string>;

TEST(DegradeLadder, LeadsFromRowsAsWrittenToFewer) {
  for (const Ladder& ladder :
       {Ladder{}, Ladder{"full+int8"}, Ladder{"sepllm:init_cache_size=4,local_size=256"},
        Ladder{"full+tm64", "sepllm:init_cache_size=4,local_size=256"},
        Ladder{"full+int8:rows=32", "streamingllm"}, Ladder{"streamingllm+int4"},
        Ladder{"sepllm+int8"}, Ladder{"sinks:size=4|separators|window:size=64"},
        Ladder{"full+int8", "knorm"}, Ladder{"keydiff+as_written/rot3"}, Ladder{"fixllm"},
        Ladder{"streamingllm:recent_size=128x15/256x15"}}) {
    EXPECT_TRUE(CheckDegradeLadder(ladder).ok()) << MessageOf(CheckDegradeLadder(ladder));
  }
}

TEST(DegradeLadder, EveryRefusalNamesTheRungAndTheBound) {
  struct Case {
    Ladder ladder;
    std::string rung, reason;
  };
  const std::vector<Case> cases = {
      {{"full"}, "rung 0", "bound=less than every row as written"},
      {{"full:positions=unrotated"}, "rung 0", "bound=less than every row as written"},
      {{"full+int8", "full+int4"}, "rung 1", "bound=less than every row, encoded"},
      {{"sepllm", "full+int8"}, "rung 1", "bound=less than some rows"},
      {{"sepllm", "streamingllm"}, "rung 1", "bound=less than some rows"},
      {{"full+int8", "sepllm+int8"}, "rung 1", "bound=rows are encoded once"},
      {{"full+int8", "knorm+as_written/rot2"}, "rung 1", "bound=rows are encoded once"},
      {{"h2o"}, "rung 0", "queries decide what stays: retention=h2o:"},
      {{"tova"}, "rung 0", "queries decide"},
      {{"snapkv"}, "rung 0", "queries decide"},
      {{"gemfilter"}, "rung 0", "queries decide"},
      {{"full+int8", "infllm"}, "rung 1", "queries decide"},
      {{"lru"}, "rung 0", "unknown policy"},
      {{"full+int8", "sepllm:local_size=-1"}, "rung 1", "local_size"},
      {{""}, "rung 0", ""}};
  for (const Case& one : cases) {
    const absl::Status status = CheckDegradeLadder(one.ladder);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.ladder.back();
    EXPECT_THAT(MessageOf(status), AllOf(HasSubstr(one.rung), HasSubstr(one.reason)));
  }
}

}  // namespace
}  // namespace kvasir
