#!/usr/bin/env python3
"""Block hits of the fixed policies on a trace: `reference_policies.py TRACE > expected.json`.

Written from the papers in plain dictionaries, apart from the C++ ones; what it counts for
tests/data/replay/synthetic.jsonl lies in tests/data/replay/expected.json. W-TinyLFU counts exactly
where the C++ one has a sketch, so its numbers may differ a little.
"""
import heapq
import json
import sys
from collections import OrderedDict

NEVER = 1 << 60


class Lists:
    """Named queues, oldest first, of values by block."""

    def __init__(self, names):
        self.__dict__.update({name: OrderedDict() for name in names.split()})


def lru(accesses, size):
    cache, hits = OrderedDict(), 0
    for x in accesses:
        if x in cache:
            hits += 1
            cache.move_to_end(x)
            continue
        if len(cache) >= size:
            cache.popitem(last=False)
        cache[x] = 1
    return hits


def lfu(accesses, size):
    uses, stamp, heap, hits = {}, {}, [], 0
    for now, x in enumerate(accesses):
        if x in uses:
            hits += 1
        elif len(uses) >= size:
            while True:
                count, when, victim = heapq.heappop(heap)
                if uses.get(victim) == count and stamp[victim] == when:
                    break
            del uses[victim]
        uses[x] = uses.get(x, 0) + 1
        stamp[x] = now
        heapq.heappush(heap, (uses[x], now, x))
    return hits


def arc(accesses, size):
    q, p, hits = Lists("t1 t2 b1 b2"), 0.0, 0

    def replace(in_b2):
        if q.t1 and ((in_b2 and len(q.t1) == int(p)) or len(q.t1) > p):
            q.b1[q.t1.popitem(last=False)[0]] = 1
        else:
            q.b2[q.t2.popitem(last=False)[0]] = 1

    for x in accesses:
        if x in q.t1 or x in q.t2:
            hits += 1
            q.t1.pop(x, None)
            q.t2.pop(x, None)
            q.t2[x] = 1
        elif x in q.b1:
            p = min(size, p + max(len(q.b2) / len(q.b1), 1))
            replace(False)
            del q.b1[x]
            q.t2[x] = 1
        elif x in q.b2:
            p = max(0, p - max(len(q.b1) / len(q.b2), 1))
            replace(True)
            del q.b2[x]
            q.t2[x] = 1
        else:
            if len(q.t1) + len(q.b1) == size:
                if len(q.t1) < size:
                    q.b1.popitem(last=False)
                    replace(False)
                else:
                    q.t1.popitem(last=False)
            elif len(q.t1) + len(q.t2) + len(q.b1) + len(q.b2) >= size:
                if len(q.t1) + len(q.t2) + len(q.b1) + len(q.b2) == 2 * size:
                    q.b2.popitem(last=False)
                replace(False)
            q.t1[x] = 1
    return hits


def s3_fifo(accesses, size):
    q, hits = Lists("small main ghosts"), 0
    small_max = max(1, size // 10)

    def drop_of_small():
        while q.small:
            x, uses = q.small.popitem(last=False)
            if uses > 1:
                q.main[x] = 0
                continue
            q.ghosts[x] = 1
            if len(q.ghosts) > size - small_max:
                q.ghosts.popitem(last=False)
            return True
        return False

    def drop_of_main():
        while q.main:
            x, uses = q.main.popitem(last=False)
            if uses == 0:
                return True
            q.main[x] = uses - 1
        return False

    for x in accesses:
        queue = q.small if x in q.small else q.main
        if x in queue:
            hits += 1
            queue[x] = min(3, queue[x] + 1)
            continue
        ghost = q.ghosts.pop(x, None)
        if len(q.small) + len(q.main) >= size:
            if len(q.small) >= small_max or not q.main:
                drop_of_small() or drop_of_main()
            else:
                drop_of_main()
        (q.main if ghost else q.small)[x] = 0
    return hits


def w_tinylfu(accesses, size):
    q, counts, uses, hits = Lists("window probation protected"), {}, 0, 0
    window_max = max(1, size // 100)
    protected_max = (size - window_max) * 8 // 10
    for x in accesses:
        counts[x] = min(15, counts.get(x, 0) + 1)
        uses += 1
        if uses >= 10 * size:
            uses //= 2
            counts = {k: v // 2 for k, v in counts.items() if v > 1}
        if x in q.window:
            hits += 1
            q.window.move_to_end(x)
        elif x in q.probation or x in q.protected:
            hits += 1
            q.probation.pop(x, None)
            q.protected.pop(x, None)
            q.protected[x] = 1
            if len(q.protected) > protected_max:
                q.probation[q.protected.popitem(last=False)[0]] = 1
        else:
            q.window[x] = 1
            if len(q.window) <= window_max:
                continue
            candidate = q.window.popitem(last=False)[0]
            main = len(q.probation) + len(q.protected)
            if main < size - window_max:
                q.probation[candidate] = 1
                continue
            queue = q.probation or q.protected
            victim = next(iter(queue))
            if counts.get(candidate, 0) > counts.get(victim, 0):
                del queue[victim]
                q.probation[candidate] = 1
    return hits


def belady(accesses, size):
    following, last = [NEVER] * len(accesses), {}
    for i in range(len(accesses) - 1, -1, -1):
        following[i] = last.get(accesses[i], NEVER)
        last[accesses[i]] = i
    cache, heap, hits = {}, [], 0
    for i, x in enumerate(accesses):
        hits += x in cache
        if x not in cache and following[i] == NEVER:
            continue
        cache[x] = following[i]
        heapq.heappush(heap, (-following[i], x))
        while len(cache) > size:
            when, victim = heapq.heappop(heap)
            if cache.get(victim) == -when:
                del cache[victim]
    return hits


POLICIES = {"lru": lru, "lfu": lfu, "arc": arc, "s3-fifo": s3_fifo, "w-tinylfu": w_tinylfu,
            "belady": belady}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        accesses = [block for line in file for block in json.loads(line)["hash_ids"]]
    unique = len(set(accesses))
    sizes = [unique * percent // 100 for percent in (1, 2, 5, 10, 20, 30, 50)]
    rows = [{"eviction": name, "capacity_blocks": size, "block_hits": policy(accesses, size)}
            for name, policy in POLICIES.items() for size in sizes]
    print(json.dumps({"accesses": len(accesses), "unique_blocks": unique, "rows": rows})
          .replace("}, {", "},\n{"))


if __name__ == "__main__":
    main()
