#!/usr/bin/env python3
"""Writes the vectors of chain hashing: `make_chain_vectors.py > tests/data/index/chain_hash.json`.

An implementation apart from the C++ one and from libsodium: SipHash-2-4 with 128 bits of output, as
its reference describes it, in plain integers. Before it writes anything it checks itself against
vectors that the authors published (key 00..0f, message 00..n-1).
"""
import json
import struct
import sys

MASK = (1 << 64) - 1
PUBLISHED = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    2: "8177228da4a45dc7fca38bdef60affe4",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
}


def rotate(x, b):
    return ((x << b) | (x >> (64 - b))) & MASK


def rounds(v, count):
    a, b, c, d = v
    for _ in range(count):
        a = (a + b) & MASK
        b = rotate(b, 13) ^ a
        a = rotate(a, 32)
        c = (c + d) & MASK
        d = rotate(d, 16) ^ c
        a = (a + d) & MASK
        d = rotate(d, 21) ^ a
        c = (c + b) & MASK
        b = rotate(b, 17) ^ c
        c = rotate(c, 32)
    return [a, b, c, d]


def siphash128(key, message):
    k0, k1 = struct.unpack("<QQ", key)
    v = [
        0x736F6D6570736575 ^ k0,
        0x646F72616E646F6D ^ k1 ^ 0xEE,
        0x6C7967656E657261 ^ k0,
        0x7465646279746573 ^ k1,
    ]
    whole = len(message) // 8 * 8
    last = message[whole:].ljust(7, b"\0") + bytes([len(message) & 0xFF])
    for at in range(0, whole + 8, 8):
        word = struct.unpack("<Q", message[at : at + 8] if at < whole else last)[0]
        v[3] ^= word
        v = rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xEE
    v = rounds(v, 4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    v = rounds(v, 4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])


def chain_key(secret, scope, parent, tokens, extra):
    head = scope + parent + struct.pack("<II", len(tokens), len(extra))
    return siphash128(secret, head + b"".join(struct.pack("<I", t) for t in tokens) + extra)


def main():
    key = bytes(range(16))
    for length, want in PUBLISHED.items():
        got = siphash128(key, bytes(range(length))).hex()
        if got != want:
            sys.exit(f"SipHash is wrong: length={length} want={want} got={got}")
    cases = []
    for number, (tokens, extra) in enumerate([
        ([0], b""),
        ([1, 2, 3], b""),
        ([4294967295], b"\x00"),
        (list(range(100, 164)), b""),
        (list(range(512)), bytes(range(32))),
        ([1, 2, 3], b"adapter"),
    ]):
        secret = bytes((17 * number + i) & 0xFF for i in range(16))
        scope = bytes((255 - i - number) & 0xFF for i in range(16))
        parent = bytes(16)
        for depth in range(3):
            block = chain_key(secret, scope, parent, tokens, extra)
            cases.append({
                "secret": secret.hex(), "scope": scope.hex(), "parent": parent.hex(),
                "tokens": tokens, "extra": extra.hex(), "key": block.hex(),
            })
            parent = block
            tokens = [(t + depth + 1) & 0xFFFFFFFF for t in tokens]
    print(json.dumps({"vectors": cases}, separators=(",", ":")).replace("},{", "},\n{"))


if __name__ == "__main__":
    main()
