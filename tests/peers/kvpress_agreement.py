#!/usr/bin/env python3
"""What NVIDIA's kvpress keeps of fixed tensors: the record that our selectors are tested against.

    kvpress_agreement.py FILE           runs the presses and compares them with the record in FILE
    kvpress_agreement.py --write FILE   runs the presses and writes the record

Needs kvpress and torch (tests/peers/kvpress_requirements.txt; `./dev peers kvpress` makes the environment); no
model, no GPU. tests/policies/kvpress_recorded_test.cc makes the same tensors and runs our code on them.

Tensors: one SplitMix64 stream a case, started with its seed; value i is the top 16 bits of output i, as a signed
number, times 2^-15 (so exact in float). In this order: queries [query_heads][tokens][dim], then keys
[kv_heads][tokens][dim]; queries are then multiplied by 4, which makes attention uneven. Attention is the causal
softmax of q.k / sqrt(dim) in double, rounded to float.

Record: for each case and press, kept[kv_head] is a hexadecimal text with a digit for every 4 tokens, token 4 i + b
being bit b of digit i, and gap[kv_head] the difference between the lowest kept and the highest dropped score:
where it is tiny, the order is a matter of rounding.
"""
import importlib.metadata
import json
import math
import pathlib
import sys
import types

import kvpress
import torch

GAP_MIN = 1e-6  # as in the C++ test: below, two implementations may differ
CASES = [
    # tokens * (1 - ratio) is a whole number: kvpress truncates there.
    {"seed": 20240927, "tokens": 300, "query_heads": 9, "kv_heads": 3, "dim": 64, "ratio": 0.5},
    {"seed": 771003115, "tokens": 256, "query_heads": 8, "kv_heads": 8, "dim": 32, "ratio": 0.75},
    {"seed": 31415926, "tokens": 400, "query_heads": 16, "kv_heads": 2, "dim": 32, "ratio": 0.875},
]
PRESSES = {
    "snapkv_k5": lambda ratio: kvpress.SnapKVPress(ratio, window_size=32, kernel_size=5),
    "snapkv_k15": lambda ratio: kvpress.SnapKVPress(ratio, window_size=16, kernel_size=15),
    "streamingllm": lambda ratio: kvpress.StreamingLLMPress(ratio, n_sink=4),
    "tova": kvpress.TOVAPress,
    "observed_attention": kvpress.ObservedAttentionPress,
    "knorm": kvpress.KnormPress,
    "keydiff": kvpress.KeyDiffPress,
}


def splitmix64(seed, count):
    state, mask = seed, (1 << 64) - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def tensors(case):
    """Queries, keys and attention, each with a leading batch of one."""
    tokens, dim = case["tokens"], case["dim"]
    queries, keys = case["query_heads"] * tokens * dim, case["kv_heads"] * tokens * dim
    values = [(x >> 48) - ((x >> 63) << 16) for x in splitmix64(case["seed"], queries + keys)]
    flat = torch.tensor(values, dtype=torch.float64) / 32768
    q = 4 * flat[:queries].view(1, -1, tokens, dim)
    k = flat[queries:].view(1, -1, tokens, dim)
    group = case["query_heads"] // case["kv_heads"]
    scores = q @ k.repeat_interleave(group, dim=1).transpose(2, 3) / math.sqrt(dim)
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    attention = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return q.float(), k.float(), attention.float()


def record_of(case, press, k, attention):
    module = types.SimpleNamespace(
        config=types.SimpleNamespace(num_attention_heads=case["query_heads"], num_key_value_heads=case["kv_heads"]),
        head_dim=case["dim"], layer_idx=0)
    hidden = torch.zeros(1, case["tokens"], 1)  # only its length is looked at, as attention is given
    scores = press.score(module, hidden, k, torch.ones_like(k), attention, {})[0].double()
    count = kvpress.presses.scorer_press.compute_n_kept(case["tokens"], case["ratio"])
    kept, gaps = [], []
    for head in scores:
        chosen = set(head.topk(count).indices.tolist())
        dropped = [s for token, s in enumerate(head.tolist()) if token not in chosen]
        gaps.append(min(head[token].item() for token in chosen) - max(dropped))
        bits = [sum(1 << b for b in range(4) if 4 * i + b in chosen) for i in range(case["tokens"] // 4)]
        kept.append("".join(f"{digit:x}" for digit in bits))
    return {"n_kept": count, "gap": [float(f"{gap:.6g}") for gap in gaps], "kept": kept}


def make_record():
    cases = []
    for case in CASES:
        _, k, attention = tensors(case)
        presses = {name: record_of(case, make(case["ratio"]), k, attention) for name, make in PRESSES.items()}
        cases.append({**case, "presses": presses})
    about = "Kept sets of kvpress on generated tensors; tests/peers/kvpress_agreement.py writes it and says how."
    return {"about": about, "kvpress": importlib.metadata.version("kvpress"), "cases": cases}


def compare(recorded, live):
    """Prints one line for each press and case; the number of kept sets that differ though no score is tied."""
    wrong = 0
    for old, new in zip(recorded["cases"], live["cases"], strict=True):
        for name, press in new["presses"].items():
            before = old["presses"][name]
            heads = list(zip(before["kept"], press["kept"], press["gap"], strict=True))
            tied = sum(gap <= GAP_MIN for _, _, gap in heads)
            differ = sum(a != b and gap > GAP_MIN for a, b, gap in heads)
            wrong += differ
            print(f"{name:20} tokens={new['tokens']} kept={press['n_kept']}: {len(heads)} heads, {tied} tied, "
                  f"{differ} differ from the record")
    return wrong


def main(arguments):
    live = make_record()
    path = pathlib.Path(arguments[-1])
    if "--write" in arguments:
        path.write_text(json.dumps(live, indent=1) + "\n", encoding="utf-8")
        return 0
    return 1 if compare(json.loads(path.read_text(encoding="utf-8")), live) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
