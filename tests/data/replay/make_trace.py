#!/usr/bin/env python3
"""Writes a small trace of our own: `make_trace.py > tests/data/replay/synthetic.jsonl`.

Chats in front of a few system prompts, documents that come back with other questions, one-shot
calls, and exact repeats; fixed seed. Written with random.random() alone, whose sequence Python
keeps from version to version.
"""
import json
import random

BLOCK = 512
draw = random.Random(7)
next_id = 0


def whole(below):
    return int(draw.random() * below)


def blocks(count):
    global next_id
    next_id += count
    return list(range(next_id - count, next_id))


def request(now, ids, partial, answer):
    tokens = len(ids) * BLOCK - (1 + whole(BLOCK - 1) if partial else 0)
    print(json.dumps({"timestamp": now, "input_length": tokens, "output_length": answer,
                      "hash_ids": ids}, separators=(", ", ": ")))


def main():
    prompts = [blocks(1 + whole(3)) for _ in range(4)]
    documents = [blocks(4 + whole(12)) for _ in range(40)]
    waiting = []  # (when, ids, turns)
    last = None
    now = 0
    for _ in range(2400):
        now += whole(600)
        due = [w for w in waiting if w[0] <= now]
        kind = draw.random()
        if due and kind < 0.6:
            turn = min(due, key=lambda w: w[0])
            waiting.remove(turn)
            _, ids, turns = turn
            ids = ids + blocks(1 + whole(2))
        elif kind < 0.75:
            ids, turns = documents[whole(40) * whole(40) // 40] + blocks(1), 0
        elif last and kind < 0.78:
            ids, turns = last, 9
        else:
            ids, turns = prompts[whole(4)] + blocks(1 + whole(9)), whole(2)
        answer = 20 + whole(500)
        partial = draw.random() < 0.9
        request(now, ids, partial, answer)
        last = ids
        if draw.random() < min(0.8, 0.3 + 0.1 * turns):
            # The next turn holds the answer too: a block that was not full has another id then.
            kept = ids[:-1] if partial else ids
            waiting.append((now + 30 * answer + 20000 + whole(120000), kept + blocks(1), turns + 1))


if __name__ == "__main__":
    main()
