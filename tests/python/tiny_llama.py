"""A tiny llama with random weights, in fp32, and caches of it that are closed after each test."""
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvasir.transformers import KvasirCache
from support import DaemonTest

VOCABULARY, SEPARATORS = 96, [1, 2, 3]
torch.set_grad_enabled(False)
torch.set_num_threads(1)


def tiny(**changes):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=None, pad_token_id=0, initializer_range=0.2, **changes)
    return LlamaForCausalLM(config).eval()


def prompt_of(count, seed=11):
    return torch.randint(1, VOCABULARY, (1, count), generator=torch.Generator().manual_seed(seed))


def generate(model, ids, cache, count=40):
    return model.generate(ids, past_key_values=cache, max_new_tokens=count, min_new_tokens=count,
                          do_sample=False)[0].tolist()


class LlamaTest(DaemonTest):
    def cache(self, model, policy="full", **options):
        options.setdefault("session", self.session)
        cache = KvasirCache(model, policy, separator_token_ids=SEPARATORS, **options)
        self.addCleanup(cache.close)
        return cache
