"""An engine in Python behind the lines of kvasir-conformance (docs/engine_guide.md):

    kvasir-conformance --engine "python3 client/python/examples/conformance_engine.py"

With --device its rows lie on that device, and are copied here and back: it has no kernels.

A transformer of two layers with random weights, in NumPy, on the daemon's memory.
"""
import json
import os
import sys

import numpy as np

import kvasir

LAYERS, HEADS, DIM, WIDTH, VOCABULARY = 2, 2, 16, 32, 64
THETA = 10000.0
SPEC = kvasir.ModelSpec(
    name="toy in Python", kv_type=kvasir.KvType.F32, vocabulary_size=VOCABULARY,
    layers=[kvasir.LayerSpec(kv_heads=HEADS, k_head_dim=DIM, v_head_dim=DIM)] * LAYERS,
    rope=kvasir.Rope.HALF_SPLIT, rope_theta=THETA, rope_dims=DIM, slots_per_block=16,
    weights_digest=b"random numbers of the seed thirty", pool=os.environ.get("KVASIR_POOL", ""))

_random = np.random.default_rng(30)
EMBEDDING = _random.standard_normal((VOCABULARY, WIDTH), np.float32)
WEIGHTS = _random.standard_normal((LAYERS, 4, WIDTH, HEADS * DIM), np.float32) / np.sqrt(WIDTH)


def rotate(heads, position):
    """heads [..., DIM], turned by RoPE: pairs (i, i + DIM/2), angles in double."""
    angle = position / THETA ** (np.arange(DIM // 2) * 2 / DIM)
    cosine, sine = np.cos(angle), np.sin(angle)
    a, b = heads[..., :DIM // 2], heads[..., DIM // 2:]
    return np.concatenate([a * cosine - b * sine, a * sine + b * cosine], -1).astype(np.float32)


def normed(x):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6)


def here(rows):
    """As an array: in place, or of a device's rows a copy."""
    return rows if isinstance(rows, np.ndarray) else rows.numpy()


def attend(view, row, query):
    """Attention of one row over what its view shows: [HEADS, DIM]."""
    pieces = view.visible(row)  # kept runs, sticky rows, the window: arrays in place
    scores = np.concatenate([
        np.einsum("hd,nhd->hn", rotate(query, piece.query_position), here(piece.k))
        for piece in pieces], 1) / np.sqrt(DIM)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    values = np.concatenate([here(piece.v) for piece in pieces])
    return np.einsum("hn,nhd->hd", weights / weights.sum(1, keepdims=True), values)


def compute(step, ids):
    """Keys and values of the step's rows into its slots; logits of the last one."""
    x = EMBEDDING[ids]
    for layer in range(LAYERS):
        view = step[layer]
        # Row by row: a product of another shape would round otherwise.
        q, k, v = (np.stack([(row @ WEIGHTS[layer, i]).reshape(HEADS, DIM) for row in normed(x)])
                   for i in range(3))
        view.write(step.row, np.stack([rotate(k[t], step.row + t) for t in range(len(ids))]), v)
        out = np.stack([attend(view, step.row + t, q[t]).ravel() for t in range(len(ids))])
        x = x + np.tanh(np.stack([WEIGHTS[layer, 3] @ row for row in out]))
    return EMBEDDING @ normed(x[-1])


class Engine:
    def __init__(self):
        self.session = self.model = None
        self.texts = {}
        name = os.environ.get("KVASIR_DEVICE")
        self.devices = [kvasir.Device(name)] if name else []

    def connect(self):
        if self.session is None:
            # The sockets are in the environment, where the package looks for them.
            self.session = kvasir.Session(
                deadline_s=int(os.environ.get("KVASIR_DEADLINE_MS", "10000")) / 1000,
                devices=self.devices)
            self.model = self.session.register_model(SPEC)

    def drop(self):
        """The daemon has ended the session, and every text with it."""
        session, self.session, self.texts = self.session, None, {}
        if session is not None:
            session.close()

    def hello(self, _):
        self.connect()
        return {"protocol": 1, "engine": SPEC.name, "layers": LAYERS, "vocabulary": VOCABULARY,
                "slots_per_block": self.model.slots_per_block,
                "offers": ["in_cache", "truncate", "prefix", "snapshot", "reconnect"]}

    def open(self, line):
        self.connect()
        prompt = line.get("prompt")
        snapshot = line.get("snapshot")
        sequence = self.session.open(
            self.model, line["retention"],
            prompt=None if prompt is None else kvasir.Prompt(prompt, rows_max=len(prompt) - 1),
            snapshot=None if snapshot is None else bytes.fromhex(snapshot))
        self.texts[line["text"]] = sequence
        return {"rows": sequence.rows}

    def feed(self, line):
        sequence, ids, logits = self.texts[line["text"]], line["ids"], None
        while ids:
            step = sequence.begin(min(len(ids), line["batch"]))
            now = ids[:step.count]  # fewer than wanted at a border
            logits = compute(step, now)
            sequence.commit(now)
            ids = ids[step.count:]
        return {"rows": sequence.rows, "next": int(logits.argmax()),
                "logits": [float(x) for x in logits]}

    def truncate(self, line):
        self.texts[line["text"]].truncate(line["rows"])
        return {"rows": self.texts[line["text"]].rows}

    def publish(self, line):
        return {"rows": self.texts[line["text"]].publish_prefix().rows}

    def save(self, line):
        saved = self.texts[line["text"]].save()
        return {"rows": saved.rows, "snapshot": saved.id.hex()}

    def close(self, line):
        self.texts.pop(line["text"]).close()
        return {}

    def answer(self, line):
        if line["op"] not in ("hello", "open", "feed", "truncate", "publish", "save", "close"):
            return {"error": f"unknown op: {line['op']}", "code": "UNIMPLEMENTED"}
        try:
            return getattr(self, line["op"])(line)
        except kvasir.KvasirError as error:
            if error.code == kvasir.Code.UNAVAILABLE:
                self.drop()
            return {"error": str(error), "code": error.code.name}
        except KeyError as error:
            return {"error": f"no such text, or a field is missing: {error}", "code": "NOT_FOUND"}


def main():
    engine = Engine()
    for line in sys.stdin:
        print(json.dumps(engine.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
