#include "tests/support/kill_load.h"

#include <random>

#include <absl/status/statusor.h>

namespace kvasir::testing {
namespace {

bool IsExhausted(const absl::Status& status) {
  return status.code() == absl::StatusCode::kResourceExhausted;
}

}  // namespace

std::vector<uint32_t> KillPrompt(uint64_t number) {
  std::vector<uint32_t> tokens = PromptOf(number / 4, 300);
  const std::vector<uint32_t> rest = PromptOf(1000 + number, 50 + number * 7 % 400);
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

std::string KillRetention(uint64_t number) {
  if (number % 4 != 3) return "full";
  return "streamingllm:start_size=4,recent_size=64,positions=original";
}

absl::Status PublishAndAttach(const TierDaemon& daemon, uint64_t seed,
                              std::atomic<uint64_t>* steps) {
  std::mt19937_64 random(seed);
  // Another engine may map all that the tenant has: then there is no room for a new one yet.
  absl::StatusOr<TierEngine> engine = daemon.Connect();
  for (; IsExhausted(engine.status()); engine = daemon.Connect()) ++*steps;
  absl::Status status = engine.status();
  while (status.ok()) {
    const uint64_t number = random() % kKillPrompts;
    const std::vector<uint32_t> prompt = KillPrompt(number);
    engine->set_retention(KillRetention(number));
    status = random() % 2 == 0 ? engine->Publish(prompt) : engine->Attach(prompt).status();
    if (IsExhausted(status)) status = absl::OkStatus();
    ++*steps;
  }
  return status;
}

}  // namespace kvasir::testing
