// Pairing heaps of tails, linked through the tails themselves: no allocation, and any tail can
// leave.
//
// Traits: Node(Tail&) -> the HeapNode used, Less(const Tail&, const Tail&) -> a strict total order.
// Thread-compatible. Cost: Insert O(1), Remove O(log n) amortised. Source: Fredman, Sedgewick,
// Sleator and Tarjan, "The pairing heap", Algorithmica 1 (1986).
#ifndef KVASIR_EVICTION_TAIL_HEAP_H_
#define KVASIR_EVICTION_TAIL_HEAP_H_

#include <utility>

#include "eviction/tail.h"

namespace kvasir::eviction {

template <typename Traits>
class TailHeap {
 public:
  TailId first() const { return root_; }
  bool empty() const { return root_ == kNoTail; }

  // REQUIRES: in no heap of these Traits.
  void Insert(Tails& tails, TailId tail) {
    Node(tails, tail) = HeapNode();
    root_ = root_ == kNoTail ? tail : Meld(tails, root_, tail);
  }

  // REQUIRES: in this heap.
  void Remove(Tails& tails, TailId tail) {
    const HeapNode node = Node(tails, tail);
    const TailId below = MergeChildren(tails, node.child);
    if (tail == root_) {
      root_ = below;
      return;
    }
    HeapNode& previous = Node(tails, node.previous);
    (previous.child == tail ? previous.child : previous.next) = node.next;
    if (node.next != kNoTail) Node(tails, node.next).previous = node.previous;
    if (below != kNoTail) root_ = Meld(tails, root_, below);
  }

 private:
  static HeapNode& Node(Tails& tails, TailId tail) { return Traits::Node(tails[tail]); }

  // The roots of two heaps become one: the larger is the first child of the smaller.
  static TailId Meld(Tails& tails, TailId a, TailId b) {
    if (Traits::Less(tails[b], tails[a])) std::swap(a, b);
    HeapNode& parent = Node(tails, a);
    HeapNode& child = Node(tails, b);
    child.previous = a;
    child.next = parent.child;
    if (parent.child != kNoTail) Node(tails, parent.child).previous = b;
    parent.child = b;
    parent.previous = parent.next = kNoTail;
    return a;
  }

  // Pairs from the left, then melds the pairs from the right.
  static TailId MergeChildren(Tails& tails, TailId first) {
    TailId pairs = kNoTail;
    while (first != kNoTail) {
      TailId pair = first;
      const TailId second = Node(tails, pair).next;
      first = second == kNoTail ? kNoTail : Node(tails, second).next;
      if (second != kNoTail) pair = Meld(tails, pair, second);
      Node(tails, pair).next = pairs;
      pairs = pair;
    }
    TailId root = kNoTail;
    while (pairs != kNoTail) {
      const TailId pair = pairs;
      pairs = Node(tails, pair).next;
      Node(tails, pair).next = Node(tails, pair).previous = kNoTail;
      root = root == kNoTail ? pair : Meld(tails, root, pair);
    }
    return root;
  }

  TailId root_ = kNoTail;
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_TAIL_HEAP_H_
