"""transformers on the daemon's memory, a process of its own: a prompt's answer, one JSON object.

usage: torch_program.py MODEL.gguf TOKENS.json COUNT CONTROL_SOCKET DATA_SOCKET
"""
import json
import sys
import time
import warnings

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gguf import llama
from kvasir.transformers import KvasirCache, digest_model


class FirstToken:
    """A streamer of generate(): when the first token came. The prompt comes before it."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.monotonic())

    def end(self):
        pass


def main(model_path, tokens_path, count, control, data):
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    config, weights = llama(model_path)
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    weights = {name: torch.tensor(weight) for name, weight in weights.items()}
    missing, unknown = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unknown:
        raise RuntimeError(f"weights do not fit: missing={missing} unknown={unknown}")
    model.tie_weights()
    with open(tokens_path, encoding="utf-8") as file:
        ids = torch.tensor([json.load(file)])
    digest = digest_model(model)  # as an engine that has started
    start, first = time.monotonic(), FirstToken()
    connect = {"control_socket": control, "data_socket": data}
    with KvasirCache(model, prompt=ids, weights_digest=digest, connect=connect) as cache:
        cached = cache.rows
        out = model.generate(ids, past_key_values=cache, max_new_tokens=count, do_sample=False,
                             streamer=first)
        if cache.publish_error:
            raise cache.publish_error
    print(json.dumps({"prompt_tokens": ids.shape[1], "cached_tokens": cached,
                      "first_ms": 1000 * (first.times[1] - start),
                      "token_ids": out[0, ids.shape[1]:].tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
