// The heap of tails against an ordered set of the standard kind.
#include "eviction/tail_heap.h"

#include <random>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir::eviction {
namespace {

struct ByKey {
  static HeapNode& Node(Tail& tail) { return tail.listed; }
  static bool Less(const Tail& a, const Tail& b) {
    return a.order_key != b.order_key ? a.order_key < b.order_key : a.serial < b.serial;
  }
};

TEST(TailHeapTest, AgreesWithASet) {
  Tails tails;
  TailHeap<ByKey> heap;
  std::set<std::pair<double, TailId>> model;
  std::mt19937_64 random(3);
  for (int step = 0; step < 50000; ++step) {
    if (model.empty() || random() % 5 < (step / 10000 % 2 == 0 ? 2U : 3U)) {
      const TailId id = tails.Take();
      tails[id].order_key = static_cast<double>(random() % 50);
      tails[id].serial = id;
      heap.Insert(tails, id);
      model.insert({tails[id].order_key, id});
    } else {
      auto victim = model.begin();
      if (random() % 2 == 0) std::advance(victim, random() % std::min<size_t>(20, model.size()));
      const TailId id = victim->second;
      heap.Remove(tails, id);
      tails.Give(id);
      model.erase(victim);
    }
    ASSERT_EQ(heap.empty(), model.empty());
    if (!model.empty()) {
      ASSERT_EQ(heap.first(), model.begin()->second);
    }
  }
}

}  // namespace
}  // namespace kvasir::eviction
