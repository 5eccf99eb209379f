"""attn_implementation="kvasir" beside attention that is written down here, in fp32."""
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache

import kvasir
from kvasir.rotation import rotation_of
from kvasir.transformers import digest_model
from support import main
from tiny_llama import LlamaTest, generate, prompt_of, tiny

THETA = 10000.0


def turn(x, by):
    """x: [..., row, dim] turned by `by` positions, as complex numbers of both halves."""
    half = x.shape[-1] // 2
    speeds = THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.as_tensor(by, dtype=torch.float64).reshape(-1, 1) * speeds
    z = torch.complex(x[..., :half].double(), x[..., half:].double())
    z = z * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((z.real, z.imag), -1).to(x.dtype)


class Rule:
    """All rows are there, and each layer attends as this says; one instance a text."""

    def attend(self, layer, q, k, v, scaling):
        """q: [head][query][dim] of the last rows; k, v: [head][row][dim], a copy a query head."""
        rows = torch.arange(k.shape[1])
        queries = rows[-q.shape[1]:]
        scores = self.scores(layer, q, k, queries, rows) * scaling
        sees = self.sees(layer, queries, rows)
        p = scores.masked_fill(~sees, -torch.inf).softmax(-1)
        self.heard(layer, p, queries)
        return p @ v

    def scores(self, layer, q, k, queries, rows):
        return q @ k.transpose(1, 2)

    def sees(self, layer, queries, rows):
        return rows[None, :] <= queries[:, None]

    def heard(self, layer, p, queries):
        pass


rule = Rule()


def attend(module, query, key, value, attention_mask, scaling=None, **_):
    each = query.shape[1] // key.shape[1]
    k, v = (x[0].repeat_interleave(each, 0) for x in (key, value))
    return rule.attend(module.layer_idx, query[0], k, v, scaling).transpose(0, 1)[None], None


AttentionInterface.register("by_rule", attend)
AttentionMaskInterface.register("by_rule", lambda *_, **__: None)


class Windows(Rule):
    def __init__(self, first, windows):
        self.first, self.windows = first, windows

    def sees(self, layer, queries, rows):
        behind = queries[:, None] - rows[None, :]
        return (behind >= 0) & ((rows[None, :] < self.first) | (behind < self.windows[layer]))


class InCache(Windows):
    """Initial rows stand right before the window."""

    def scores(self, layer, q, k, queries, rows):
        places = queries.clamp(max=self.first + self.windows[layer] - 1)
        near = q @ k.transpose(1, 2)
        moved = turn(q, places - queries) @ k.transpose(1, 2)
        return torch.where(rows[None, :] < self.first, moved, near)


class Dropping(Rule):
    """Rows that are dropped never come back: alive[layer] is [query head][row]."""

    def __init__(self):
        self.alive = {}

    def sees(self, layer, queries, rows):
        causal = super().sees(layer, queries, rows)
        alive = self.alive.get(layer)
        if alive is None:
            return causal[None]
        later = torch.ones(alive.shape[0], len(rows) - alive.shape[1], dtype=torch.bool)
        return causal[None] & torch.cat((alive, later), 1)[:, None]

    def keep(self, layer, score, count, always, heads=2):
        """Of each kv head the rows of `always` and `count` others: largest score ([head][row])."""
        each = score.shape[0] // heads
        by_head = score.reshape(heads, each, -1).sum(1)
        now = self.sees(layer, torch.tensor([score.shape[1] - 1]), torch.arange(score.shape[1]))
        now = now.expand(score.shape[0], -1, -1)[::each, 0]
        others = by_head.masked_fill(~now | always, -torch.inf)
        chosen = torch.zeros_like(now).scatter_(1, others.topk(count, 1).indices, True)
        self.alive[layer] = (chosen | (always & now)).repeat_interleave(each, 0)


class H2o(Dropping):
    def __init__(self, hh_size, recent_size, evict_interval):
        super().__init__()
        self.sizes, self.interval, self.mass = (hh_size, recent_size), evict_interval, {}

    def heard(self, layer, p, queries):
        so_far = self.mass.get(layer)
        mass = p.sum(1)
        if so_far is not None:
            mass[:, :so_far.shape[1]] += so_far
        self.mass[layer] = mass
        rows = torch.arange(mass.shape[1])
        hh_size, recent_size = self.sizes
        if int(self.sees(layer, queries[-1:], rows)[0, -1].sum()) == sum(self.sizes) + self.interval:
            self.keep(layer, mass, hh_size, rows >= len(rows) - recent_size)


class Tova(Dropping):
    def __init__(self, max_capacity):
        super().__init__()
        self.capacity = max_capacity

    def heard(self, layer, p, queries):
        last = p[:, -1]
        rows = torch.arange(last.shape[1])
        if int(self.sees(layer, queries[-1:], rows)[0, -1].sum()) == self.capacity + 1:
            self.keep(layer, last.sum(0, keepdim=True).expand_as(last), self.capacity - 1,
                      rows == len(rows) - 1)


class SnapKv(Dropping):
    def __init__(self, prompt_rows, capacity, window, kernel):
        super().__init__()
        self.prompt_rows, self.capacity, self.window, self.kernel = (
            prompt_rows, capacity, window, kernel)

    def heard(self, layer, p, queries):
        if p.shape[2] != self.prompt_rows:
            return
        # The authors' softmax is over all rows of the prompt, as attention's is.
        score = p[:, -self.window:, :-self.window].mean(1)
        pooled = torch.nn.functional.avg_pool1d(score, self.kernel, 1, self.kernel // 2)
        rows = torch.arange(self.prompt_rows)
        whole = torch.cat((pooled, torch.zeros(len(pooled), self.window)), 1)
        self.keep(layer, whole, self.capacity - self.window, rows >= self.prompt_rows - self.window)


class Choosing(Rule):
    """GemFilter: keys of a layer by the last query, over all heads, averaged over 5 neighbours."""

    def __init__(self, layer):
        self.layer = layer

    def scores(self, layer, q, k, queries, rows):
        if layer == self.layer:
            self.score = torch.einsum("hd,hrd->r", q[:, -1], k)
        return super().scores(layer, q, k, queries, rows)

    def best(self, count):
        pooled = torch.nn.functional.avg_pool1d(self.score[None], 5, 1, 2)[0]
        return sorted(pooled.topk(count).indices.tolist())


class Far(Rule):
    """All rows are seen: those behind the window at one distance."""

    def __init__(self, window):
        self.window = window

    def scores(self, layer, q, k, queries, rows):
        far = turn(q, self.window - 1 - queries) @ turn(k, -rows).transpose(1, 2)
        near = q @ k.transpose(1, 2)
        return torch.where(queries[:, None] - rows[None, :] < self.window, near, far)


class AttentionTest(LlamaTest):
    def wanted(self, ids, made, parts):
        """Logits of the last row of each part, by a rule."""
        global rule
        rule = made
        model, cache, at, logits = tiny(attn_implementation="by_rule"), DynamicCache(), 0, []
        for count in parts:
            logits.append(model(ids[:, at:at + count], past_key_values=cache).logits[0, -1])
            at += count
        return torch.stack(logits)

    def compare(self, policy, made, ids, parts, **options):
        model = tiny(attn_implementation="kvasir")
        cache = self.cache(model, policy, **options)
        wanted = self.wanted(ids, made, parts)
        dropped_nothing = self.wanted(ids, Rule(), parts)
        self.assertGreater((wanted[-1] - dropped_nothing[-1]).abs().max().item(), 0.05)
        at = 0
        for count, logits in zip(parts, wanted):
            got = model(ids[:, at:at + count], past_key_values=cache,
                        logits_to_keep=1).logits[0, -1]
            at += count
            self.assertLess((got - logits).abs().max().item(), 2e-4, f"row {at - 1}")
        return cache

    def test_full_is_token_for_token_dynamic_cache(self):
        for length in (1, 16, 130, 700):
            with self.subTest(length=length):
                ids, model = prompt_of(length), tiny(attn_implementation="eager")
                wanted = generate(model, ids, DynamicCache(config=model.config))
                model.set_attn_implementation("kvasir")
                self.assertEqual(generate(model, ids, self.cache(model)), wanted)

    def test_logits_are_eager_attention_s_bit_for_bit(self):
        for dtype in (torch.float32, torch.bfloat16):
            ids, model = prompt_of(64), tiny(attn_implementation="kvasir").to(dtype)
            eager = tiny(attn_implementation="eager").to(dtype)
            ours, theirs = self.cache(model), DynamicCache(config=eager.config)
            for part in (ids[:, :40], ids[:, 40:41], ids[:, 41:64]):
                self.assertTrue(torch.equal(model(part, past_key_values=ours).logits,
                                            eager(part, past_key_values=theirs).logits))

    def test_without_a_cache_of_the_daemon_it_is_sdpa(self):
        ids, model, sdpa = prompt_of(70), tiny(attn_implementation="kvasir"), tiny()
        self.assertTrue(torch.equal(model(ids).logits, sdpa(ids).logits))
        self.assertEqual(generate(model, ids, DynamicCache(config=model.config)),
                         generate(sdpa, ids, DynamicCache(config=sdpa.config)))

    def test_both_ways_share_prefixes(self):
        ids, sdpa, model = prompt_of(100), tiny(), tiny(attn_implementation="kvasir")
        self.assertEqual(digest_model(sdpa), digest_model(model))
        wanted = generate(sdpa, ids, self.cache(sdpa, prompt=ids))
        cache = self.cache(model, prompt=ids)
        self.assertEqual(cache.rows, 96)
        self.assertEqual(generate(model, ids, cache), wanted)

    def test_layers_have_windows_of_their_own(self):
        self.compare("streamingllm:start_size=4,recent_size=60/30/9,positions=original",
                     Windows(4, (60, 30, 9)), prompt_of(200), [90, 7] + [1] * 103)

    def test_queries_turn_for_keys_that_were_moved(self):
        self.compare("streamingllm:start_size=4,recent_size=28", InCache(4, (28,) * 3),
                     prompt_of(150), [50, 3] + [1] * 97)

    def test_keys_without_rotation(self):
        policy = "streamingllm:start_size=4,recent_size=28,positions=unrotated"
        self.compare(policy, Windows(4, (28,) * 3), prompt_of(150), [50, 3] + [1] * 97)

    def test_attention_decides_what_stays(self):
        ids = prompt_of(150)
        self.compare("h2o:hh_size=8,recent_size=8,evict_interval=1", H2o(8, 8, 1), ids, [1] * 150)
        self.compare("h2o:hh_size=20,recent_size=8,evict_interval=5", H2o(20, 8, 5), ids,
                     [33] + [1] * 117)
        self.compare("tova:max_capacity=16,evict_interval=1", Tova(16), ids, [1] * 150)

    def test_the_prompt_s_last_queries_decide_what_stays(self):
        ids = prompt_of(120)
        cache = self.compare("snapkv:max_capacity_prompt=24,window_size=8,kernel_size=5",
                             SnapKv(100, 24, 8, 5), ids, [100] + [1] * 20, prompt=ids[:, :100])
        self.assertLess(cache.sequence.footprint().kept_rows, 60)

    def test_blocks_are_looked_up(self):
        policy = ("infllm:n_init=4,n_local=32,block_size=16,topk=16,max_cached_block=16,"
                  "exc_block_size=8")
        self.compare(policy, Far(32), prompt_of(150), [8] * 10 + [1] * 70)

    def test_one_layer_s_query_chooses_the_prompt(self):
        ids, layer, count = prompt_of(150), 1, 40
        global rule
        rule = chooser = Choosing(layer)
        tiny(attn_implementation="by_rule")(ids, past_key_values=DynamicCache())
        chosen = chooser.best(count)
        self.assertNotEqual(chosen, list(range(110, 150)))
        for implementation in ("kvasir", "eager"):
            model = tiny(attn_implementation=implementation)
            if implementation == "eager":  # the chosen tokens are a prompt of their own
                got = generate(model, ids[:, chosen], DynamicCache(config=model.config))[count:]
                self.assertEqual(got, wanted)
                continue
            for options in ({}, {"prompt": ids}):
                cache = self.cache(model, f"gemfilter:filter_layer={layer},topk={count}", **options)
                wanted = generate(model, ids, cache)[150:]
                self.assertEqual((cache.rows, cache.sequence.rows), (189, count + 39))
                self.assertEqual(cache.get_seq_length(), 189)
                # It goes on, and back again.
                cache.crop(170 if kvasir.transformers._VERSION < (5, 20) else 170 - 189)
                self.assertEqual(cache.sequence.rows, count + 20)
                whole = torch.tensor([ids[0].tolist() + wanted[:25]])
                self.assertEqual(generate(model, whole, cache, 15)[175:], wanted[25:])

    def test_generate_with_a_bounded_cache(self):
        model, ids = tiny(attn_implementation="kvasir"), prompt_of(300)
        cache = self.cache(model, "h2o:hh_size=16,recent_size=16,evict_interval=4")
        self.assertEqual(len(generate(model, ids, cache, 60)), 360)
        self.assertEqual(cache.rows, 359)
        self.assertLessEqual(cache.sequence.footprint().kept_rows, 36)

    def test_a_forward_that_failed_is_forgotten(self):
        model, ids = tiny(attn_implementation="kvasir"), prompt_of(40)
        cache = self.cache(model)

        def fail(*_):
            raise ArithmeticError("a layer fails")
        hook = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(fail)
        with self.assertRaisesRegex(ArithmeticError, "a layer fails"):
            model(ids, past_key_values=cache)
        hook.remove()
        wanted = tiny()(ids).logits
        self.assertTrue(torch.equal(model(ids).logits, wanted))
        got = model(ids, past_key_values=cache).logits
        self.assertLess((got - wanted).abs().max().item(), 1e-4)

    def test_what_it_cannot_it_refuses(self):
        model, ids = tiny(attn_implementation="kvasir"), prompt_of(8)
        sdpa = tiny()
        with self.assertRaisesRegex(NotImplementedError, "attention.*kvasir"):
            sdpa(ids, past_key_values=self.cache(sdpa, "gemfilter:filter_layer=1,topk=8"))
        scaled = tiny(attn_implementation="kvasir", rope_parameters={
            "rope_type": "linear", "rope_theta": THETA, "factor": 4.0})
        self.assertIsNone(rotation_of(scaled))
        with self.assertRaisesRegex(kvasir.InvalidArgumentError, "rope"):
            self.cache(scaled, "streamingllm:start_size=4,recent_size=60")
        with self.assertRaisesRegex(NotImplementedError, "rotated"):
            scaled(ids, past_key_values=self.cache(scaled, "full:positions=unrotated"))
        with self.assertRaisesRegex(NotImplementedError, "softcap"):
            model(ids, past_key_values=self.cache(model), softcap=30.0)
        with self.assertRaisesRegex(NotImplementedError, "inference"):
            model.config.attention_dropout = 0.5
            for layer in model.model.layers:
                layer.self_attn.attention_dropout = 0.5
            model.train()(ids, past_key_values=self.cache(model))


if __name__ == "__main__":
    main()
