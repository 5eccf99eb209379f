"""Weights of a GGUF file as transformers wants them: the three element types of the pinned model.

transformers reads GGUF by packages of its own; this needs NumPy alone.
"""
import struct

import numpy as np

_F32, _Q4_1, _Q8_0, _STRING, _ARRAY = 0, 3, 8, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}
_BLOCK = 32  # elements of a quantised block


def dequantise(kind, raw, count):
    """float32 of `count` elements that lie at the beginning of the bytes `raw`."""
    if kind == _F32:
        return np.frombuffer(raw, "<f4", count)
    if kind == _Q8_0:
        blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "i1", _BLOCK)]), count // _BLOCK)
        return (blocks["d"].astype(np.float32)[:, None] * blocks["q"]).reshape(-1)
    if kind == _Q4_1:  # low halves are the first elements
        block = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", _BLOCK // 2)])
        blocks = np.frombuffer(raw, block, count // _BLOCK)
        q = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1)
        scale, least = (blocks[name].astype(np.float32)[:, None] for name in ("d", "m"))
        return (q * scale + least).reshape(-1)
    raise ValueError(f"elements of this type are not read here: ggml_type={kind}")


class File:
    """keys: metadata; tensors: name to float32 array. Made for a file that is trusted."""

    def __init__(self, path):
        self._data, self._at = np.memmap(path, np.uint8, "r"), 0
        magic, version, tensors, keys = struct.unpack("<4sIQQ", self._take(24))
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"not a GGUF file of version 3: {path}")
        self.keys = {}
        for _ in range(keys):
            name = self._string()
            self.keys[name] = self._value(self._number("I"))
        infos = []
        for _ in range(tensors):
            name = self._string()
            shape = [self._number("Q") for _ in range(self._number("I"))]
            infos.append((name, shape[::-1], self._number("I"), self._number("Q")))
        alignment = self.keys.get("general.alignment", 32)
        base = -(-self._at // alignment) * alignment
        self.tensors = {
            name: dequantise(kind, self._data[base + offset:], int(np.prod(shape))).reshape(shape)
            for name, shape, kind, offset in infos}

    def _take(self, count):
        self._at += count
        return self._data[self._at - count:self._at].tobytes()

    def _number(self, kind):
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0]

    def _string(self):
        return self._take(self._number("Q")).decode("utf-8", "replace")

    def _value(self, kind):
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            kind, count = self._number("I"), self._number("Q")
            return [self._value(kind) for _ in range(count)]
        return self._number(_SCALARS[kind])


def _halves(weight, heads):
    """Rows of llama.cpp's rotary order, pairs of neighbours, in transformers': pairs of halves."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


_NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
          "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
          "ffn_down": "mlp.down_proj", "token_embd": "model.embed_tokens",
          "output_norm": "model.norm"}


def llama(path):
    """Of a Llama with tied embeddings: (arguments of LlamaConfig, arrays of the state dict)."""
    file = File(path)

    def key(name):
        return file.keys["llama." + name]
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    config = {
        "vocab_size": key("vocab_size"), "hidden_size": key("embedding_length"),
        "intermediate_size": key("feed_forward_length"), "num_hidden_layers": key("block_count"),
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": key("context_length"), "tie_word_embeddings": True,
        "rms_norm_eps": key("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": key("rope.freq_base")},
        "bos_token_id": None, "pad_token_id": None,
        "eos_token_id": file.keys["tokenizer.ggml.eos_token_id"]}
    weights = {}
    for name, weight in file.tensors.items():
        parts = name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                weight = _halves(weight, heads if parts[2] == "attn_q" else kv_heads)
            weights[f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight"] = weight
        else:
            weights[_NAMES[parts[0]] + ".weight"] = weight
    return config, weights
