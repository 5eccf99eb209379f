// States of policies: any bytes under a right checksum are refused, or give a policy that is saved
// as it was read and keeps every promise of retention_policy.h over a random walk.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

#include "base/state_codec.h"
#include "policies/policy_registry.h"
#include "policies/policy_state.h"
#include "tests/policies/policy_walk.h"

namespace {

constexpr const char* kSpecs[] = {
    "full",
    "streamingllm:start_size=3,recent_size=20",
    "sepllm:init_cache_size=2,local_size=20,prefill_local_size=9",
    "stride:size=2|window:size=30+int8:rows=32,n_sink=3",
    "sepllm:form=sepcache,init_cache_size=2,sep_cache_size=6,local_size=9,cache_size=30",
    "sepllm:form=manager,sep_cache_size=6,local_size=9,cache_size=30,use_max_sep_cache=false",
    "full+int8:rows=32,recent=9",
    "streamingllm:start_size=3,recent_size=90+int8:rows=32,recent=40",
    "window:size=70+int8:rows=32,recent=50",
    "knorm:max_capacity=20,recent_size=4,evict_interval=6",
};

}  // namespace

// Of the first three bytes one chooses the policy and two say its rows; the body follows.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  kvasir::PolicyContext context;
  context.separators = {1, 2};
  context.prompt_rows = data[0] % 2 == 0 ? 40 : 0;
  context.pad_id = 0;
  const absl::StatusOr<kvasir::PolicyLanes> lanes =
      kvasir::MakeLanes(kSpecs[data[0] / 2 % std::size(kSpecs)], context);
  if (!lanes.ok()) std::abort();
  kvasir::RetentionPolicy& policy = *lanes->lanes.front();
  const uint64_t rows = data[1] + 256U * data[2];
  std::string body;
  kvasir::AppendNumber(body, rows);
  body += std::string_view(reinterpret_cast<const char*>(data) + 3, size - 3);
  const std::string state = kvasir::SealState(kvasir::kPolicyState, "", body);
  if (!policy.RestoreState(state, rows).ok()) return 0;
  if (policy.SaveState().value() != state) std::abort();
  kvasir::testing::PolicyWalk walk(&policy, size);
  walk.Run(40);
  if (!walk.violation().empty()) {
    std::fprintf(stderr, "%s\n", walk.violation().c_str());
    std::abort();
  }
  return 0;
}
