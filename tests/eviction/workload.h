// Requests as a chat service has them, from a seed: a few system prompts, conversations that come
// back with their answers, edits in the middle, one-shot calls and exact repeats.
#ifndef KVASIR_TESTS_EVICTION_WORKLOAD_H_
#define KVASIR_TESTS_EVICTION_WORKLOAD_H_

#include <cstdint>
#include <random>
#include <vector>

#include "eviction/serve.h"

namespace kvasir::eviction {

struct WorkloadRequest {
  std::vector<ChainKey> chain;
  bool last_partial = false;
  uint32_t tokens_in = 0;
  uint32_t tokens_out = 0;
  int64_t now_us = 0;

  Request View() const { return {chain, last_partial, tokens_in, tokens_out, now_us}; }
};

// A key that is a function of its parent and a number, as a chained hash is.
inline ChainKey TestKey(const ChainKey& parent, uint64_t number) {
  const auto mix = [](uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
  };
  const uint64_t low = mix(parent.low + 0x9e3779b97f4a7c15 * (number + 1));
  return {low, mix(parent.high ^ low)};
}

class Workload {
 public:
  explicit Workload(uint64_t seed) : random_(seed) {}

  WorkloadRequest Next() {
    now_us_ += static_cast<int64_t>(random_() % 2'000'000);
    WorkloadRequest request;
    const uint64_t kind = random_() % 10;
    if (kind < 5 && !open_.empty()) {
      std::vector<ChainKey>& chat = open_[random_() % open_.size()];
      if (kind == 0) chat.resize(1 + random_() % chat.size());  // an edit
      Extend(chat, kind == 1 ? 0 : random_() % 6);
      request.chain = chat;
    } else {
      std::vector<ChainKey> chat;
      const uint64_t prompt = random_() % 3;
      ChainKey parent;
      for (uint64_t i = 0; i < 2 + prompt; ++i) {
        chat.push_back(parent = TestKey(parent, prompt * 100 + i));
      }
      Extend(chat, 1 + random_() % 8);
      request.chain = chat;
      if (kind < 8) {
        if (open_.size() < 40) {
          open_.push_back(chat);
        } else {
          open_[random_() % open_.size()] = chat;
        }
      }
    }
    request.last_partial = random_() % 3 == 0;
    request.tokens_in = static_cast<uint32_t>(request.chain.size() * 512 - random_() % 512);
    request.tokens_out = static_cast<uint32_t>(random_() % 600);
    request.now_us = now_us_;
    return request;
  }

 private:
  void Extend(std::vector<ChainKey>& chat, uint64_t blocks) {
    for (uint64_t i = 0; i < blocks; ++i) {
      chat.push_back(TestKey(chat.empty() ? ChainKey() : chat.back(), 1000 + random_() % 100000));
    }
  }

  std::mt19937_64 random_;
  int64_t now_us_ = 0;
  std::vector<std::vector<ChainKey>> open_;
};

}  // namespace kvasir::eviction

#endif  // KVASIR_TESTS_EVICTION_WORKLOAD_H_
