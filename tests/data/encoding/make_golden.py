#!/usr/bin/env python3
"""Records of the token-mixed code, made in plain Python from docs/encodings.md: golden_encode.json.

Shares nothing with the C++ code but the document: sums are in double and in the order of their
indices, codes come from a search over all levels, planes from one sort. Rows come from a seed, by
rows() here and by GoldenRows() of the test. What lies so near to a border that rounding in float
could decide it ends the program: take another seed then.
"""
import json
import math
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
LEVELS = {int(n): book for n, book in json.loads((HERE / "levels.json").read_text()).items()}
ERRORS = [1, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.00064]  # of 0 to 6 planes
SIGNS = {32: 0x794C7D5D, 64: 0x4E833A1F794C7D5D}
CASES = [
    # rows, dims, kind, planes, filled, weighted, seed
    (64, 64, "K", 144, 64, True, 1), (64, 64, "V", 112, 64, False, 2),
    (32, 64, "K", 160, 32, True, 3), (32, 64, "V", 128, 32, False, 4),
    (64, 64, "K", 128, 64, False, 5), (64, 128, "K", 416, 64, True, 6),
    (64, 8, "K", 48, 64, True, 7), (64, 24, "V", 12, 64, False, 8),
    (32, 40, "K", 170, 32, True, 9), (64, 64, "K", 272, 64, False, 10),
    (64, 64, "K", 144, 17, True, 11), (64, 64, "V", 112, 40, False, 12),
    (32, 64, "V", 128, 1, False, 13), (32, 64, "K", 96, 31, True, 14),
]


def rows(filled, dims, seed):
    """Multiples of 2^-11 around a mean, of another spread in each channel, one row far larger."""
    state, out = seed, []
    for row in range(filled):
        out.append([])
        for c in range(dims):
            total = 0
            for _ in range(4):
                state = (state * 1664525 + 1013904223) % 2**32
                total += state >> 24
            spread = 2.0 ** -(c * 5 % 7) * (8 if row == 5 else 1)
            out[row].append((total - 510) / 32 * spread + (c * 37 % 29 - 14) / 4)
    return out


def weights(dims):
    """What an error of a channel costs; nothing for some."""
    return [(c * 7 % 13) * 0.25 for c in range(dims)]


def half(value):
    """The nearest half."""
    return struct.unpack("<e", struct.pack("<e", min(value, 65504.0)))[0]


class TooNearError(Exception):
    """Rounding in float could decide on which side of a border a value lies."""


def apart(value, border, reach):
    if abs(value - border) < reach:
        raise TooNearError(f"{value} {border}")


def rounded(value):
    apart(value, math.floor(value) + 0.5, 1e-4)
    return round(value)


def mixed(column, count):
    """The signed Hadamard transform of a column."""
    signed = [x if SIGNS[count] >> t & 1 else -x for t, x in enumerate(column)]
    return [
        sum(-x if (i & t).bit_count() % 2 else x for t, x in enumerate(signed)) / math.sqrt(count)
        for i in range(count)
    ]


def allocate(gains, planes):
    """Planes by channel: the largest gains first, lower channels first among equals."""
    order = sorted(
        ((-g * (ERRORS[n] - ERRORS[n + 1]), c, n) for c, g in enumerate(gains) for n in range(6))
    )
    if order[planes - 1][0] != 0 and planes < len(order):
        last, following = order[planes - 1], order[planes]
        if last[0] != following[0]:
            apart(last[0] / following[0], 1, 1e-5)
    given = [0] * len(gains)
    for _, c, _ in order[:planes]:
        given[c] += 1
    return given


def encode(data, count, dims, kind, planes, weight):
    filled = len(data)
    head, side = b"\0\0", bytearray()
    data = [list(row) for row in data]
    if kind == "K":
        means = [sum(row[c] for row in data) / filled for c in range(dims)]
        scale = half(max(map(abs, means)) / 127)
        codes = [max(-127, min(127, rounded(m / scale))) for m in means]
        data = [[x - scale * codes[c] for c, x in enumerate(row)] for row in data]
        head, side = struct.pack("<e", scale), bytearray(code & 255 for code in codes)
    else:
        for row in data:
            size = math.sqrt(sum(x * x for x in row) / dims)
            code = max(0, min(255, rounded(16 * math.log2(size)) + 128))
            side.append(code)
            row[:] = [x / 2 ** ((code - 128) / 16) for x in row]
        side += bytes(count - filled)
    data += [[0.0] * dims for _ in range(count - filled)]
    columns = [mixed([row[c] for row in data], count) for c in range(dims)]
    deviations = [math.sqrt(sum(y * y for y in column) / count) for column in columns]
    scale = half(max(deviations))
    steps = [max(0, min(31, rounded(4 * math.log2(scale / sd)))) for sd in deviations]
    scales = [scale * 2 ** (-e / 4) for e in steps]
    given = allocate([w * s * s for w, s in zip(weight or [1] * dims, scales)], planes)
    body = bytearray()
    for column, s, n in zip(columns, scales, given):
        words = [0] * n
        for t, y in enumerate(column):
            if n == 0:
                continue
            book = LEVELS[n]
            code = min(range(len(book)), key=lambda i: abs(y / s - book[i]))
            for border in ((a + b) / 2 for a, b in zip(book, book[1:])):
                apart(y / s, border, 4e-6)
            for plane in range(n):
                words[plane] |= (code >> plane & 1) << t
        for word in words:
            body += word.to_bytes(count // 8, "little")
    descriptors = bytes(n | e << 3 for n, e in zip(given, steps))
    return struct.pack("<e", scale) + head + descriptors + bytes(side) + bytes(body)


def main():
    out = []
    for count, dims, kind, planes, filled, weighted, seed in CASES:
        record = None
        while record is None:
            try:
                record = encode(rows(filled, dims, seed), count, dims, kind, planes,
                                weights(dims) if weighted else None)
            except TooNearError:
                seed += 100
        out.append({
            "rows": count, "dims": dims, "kind": kind, "planes": planes, "filled": filled,
            "weighted": weighted, "seed": seed, "record": record.hex(),
        })
    text = ",\n".join(json.dumps(case) for case in out)
    (HERE / "golden_encode.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
