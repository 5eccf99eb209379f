"""KvasirCache beside DynamicCache on a tiny model with random weights, in fp32."""
import subprocess
import sys

import torch
from transformers.cache_utils import DynamicCache

import kvasir
from kvasir.transformers import KvasirCache, digest_model
from support import main
from tiny_llama import SEPARATORS, LlamaTest, generate, prompt_of, tiny


class CacheTest(LlamaTest):
    def masked_logits(self, model, ids, sees):
        """Of one forward over all rows, where sees[i][p] says what query i sees."""
        mask = torch.zeros(1, 1, *sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
        return model(ids, attention_mask=mask, use_cache=False).logits[0]

    def test_full_is_token_for_token_dynamic_cache(self):
        for implementation in ("sdpa", "eager"):
            model = tiny(attn_implementation=implementation)
            for length in (1, 15, 16, 130, 700):
                with self.subTest(implementation, length=length):
                    ids = prompt_of(length)
                    wanted = generate(model, ids, DynamicCache(config=model.config))
                    cache = self.cache(model)
                    self.assertEqual(generate(model, ids, cache), wanted)
                    self.assertEqual(cache.rows, length + 39)
                    self.assertEqual(cache.get_seq_length(), length + 39)

    def test_logits_are_dynamic_cache_s_bit_for_bit(self):
        model, ids = tiny(), prompt_of(64)
        ours, theirs = self.cache(model), DynamicCache(config=model.config)
        for part in (ids[:, :40], ids[:, 40:41], ids[:, 41:64]):
            a = model(part, past_key_values=ours).logits
            b = model(part, past_key_values=theirs).logits
            self.assertTrue(torch.equal(a, b))

    def test_generate_goes_on_where_it_was(self):
        model, ids = tiny(), prompt_of(50)
        wanted = generate(model, ids, DynamicCache(config=model.config), 60)
        cache = self.cache(model)
        first = generate(model, ids, cache, 20)
        self.assertEqual(generate(model, torch.tensor([first]), cache, 40), wanted)
        # And after a crop, as assisted decoding does.
        length = 60 if kvasir.transformers._VERSION < (5, 20) else 60 - cache.rows
        cache.crop(length)
        self.assertEqual(cache.rows, 60)
        self.assertEqual(generate(model, torch.tensor([wanted[:70]]), cache, 40), wanted)

    def test_sepllm_is_the_masked_run(self):
        ids = prompt_of(300)
        row = torch.arange(300)
        separator = torch.isin(ids[0], torch.tensor(SEPARATORS))
        sees = (row[None, :] <= row[:, None]) & (
            (row[None, :] < 4) | separator[None, :] | (row[:, None] - row[None, :] < 32))
        policy = "sepllm:form=static,init_cache_size=4,local_size=32"
        for implementation in ("sdpa", "eager"):
            model = tiny(attn_implementation=implementation)
            wanted = self.masked_logits(model, ids, sees)
            full = model(ids, use_cache=False).logits[0]
            self.assertGreater((wanted - full).abs().max().item(), 0.1, "the mask matters")
            for step in (1, 7):
                with self.subTest(implementation, step=step):
                    cache = self.cache(model, policy)
                    self.compare(model, ids, cache, wanted, step)
                    self.assertEqual(cache.rows, 300)
                    # The two lengths: positions follow all rows, attention what is left of them.
                    length, offset = cache.get_mask_sizes(1, 0)
                    self.assertEqual(length + offset, 301)
                    self.assertLess(length, 150)
                    self.assertEqual(cache.get_seq_length(), 300)
                    self.assertLess(cache.sequence.footprint().kept_rows, 150)

    def compare(self, model, ids, cache, wanted, step):
        at = 0
        while at < ids.shape[1]:
            part = ids[:, at:at + step]
            got = model(part, past_key_values=cache, logits_to_keep=1).logits[0, -1]
            at += part.shape[1]
            self.assertLess((got - wanted[at - 1]).abs().max().item(), 1e-4)

    def test_a_prompt_in_one_call_is_the_masked_run_as_well(self):
        model, ids = tiny(), prompt_of(500)
        row = torch.arange(500)
        sees = (row[None, :] <= row[:, None]) & (
            (row[None, :] < 4) | (row[:, None] - row[None, :] < 60))
        wanted = self.masked_logits(model, ids, sees)[-1]
        cache = self.cache(model, "streamingllm:start_size=4,recent_size=60,positions=original")
        got = model(ids, past_key_values=cache, logits_to_keep=1).logits[0, -1]
        self.assertLess((got - wanted).abs().max().item(), 1e-4)
        self.assertEqual(cache.rows, 500)
        self.assertEqual(generate(model, ids, self.cache(
            model, "streamingllm:start_size=4,recent_size=60,positions=original"), 1)[-1],
            int(wanted.argmax()))

    def test_a_prefix_goes_from_process_to_process(self):
        model, ids = tiny(), prompt_of(200)
        wanted = generate(model, ids, DynamicCache(config=model.config))
        for policy in ("full", "sepllm:form=static,init_cache_size=4,local_size=64"):
            with self.subTest(policy):
                child = subprocess.run(
                    [sys.executable, "-B", __file__, "publish", str(self.daemon.control),
                     str(self.daemon.data), policy], check=True, capture_output=True, text=True)
                cache = self.cache(model, policy, prompt=ids)
                self.assertEqual(cache.rows, 199 if policy != "full" else 192)
                got = generate(model, ids, cache)
                self.assertEqual(str(got), child.stdout.strip())
                if policy == "full":
                    self.assertEqual(got, wanted)
        other = self.cache(model, "full", prompt=ids, weights_digest=b"another's weights")
        self.assertEqual(other.rows, 0, "models never meet under one key")
        self.assertEqual(self.cache(model, "full", prompt=ids, salt=b"else").rows, 0)

    def test_models_that_differ_have_other_digests(self):
        model = tiny()
        changed = tiny()
        self.assertEqual(digest_model(changed), digest_model(model))
        self.assertNotEqual(digest_model(tiny(rope_parameters={
            "rope_type": "default", "rope_theta": 500.0})), digest_model(model))
        again = tiny()
        again.model.layers[0].self_attn.k_proj.weight[0, 0] += 1
        self.assertNotEqual(digest_model(again), digest_model(model))

    def test_bf16_rows_are_bits_of_dynamic_cache(self):
        model, ids = tiny().to(torch.bfloat16), prompt_of(40)
        ours, theirs = self.cache(model), DynamicCache(config=model.config)
        for part in (ids[:, :39], ids[:, 39:]):
            self.assertTrue(torch.equal(model(part, past_key_values=ours).logits,
                                        model(part, past_key_values=theirs).logits))

    def test_what_it_cannot_it_refuses(self):
        model, ids = tiny(), prompt_of(8)
        with self.assertRaisesRegex(NotImplementedError, "batch 1"):
            model(ids.repeat(2, 1), past_key_values=self.cache(model))
        with self.assertRaisesRegex(NotImplementedError, "padding"):
            model(ids, attention_mask=torch.tensor([[0] + [1] * 7]),
                  past_key_values=self.cache(model))
        with self.assertRaisesRegex(NotImplementedError, "attention"):
            model(ids, past_key_values=self.cache(model, "h2o:hh_size=8,recent_size=8"))
        with self.assertRaisesRegex(NotImplementedError, "layers keep different"):
            model(prompt_of(100), logits_to_keep=1, past_key_values=self.cache(
                model, "streamingllm:start_size=4,recent_size=60/30/60,positions=original"))
        with self.assertRaisesRegex(NotImplementedError, "keys come rotated"):
            model(ids, past_key_values=self.cache(model, "full:positions=unrotated"))
        with self.assertRaisesRegex(kvasir.KvasirError, "int8"):
            self.cache(model, "full+int8")
        with self.assertRaisesRegex(NotImplementedError, "queries come rotated.*kvasir"):
            model(ids, past_key_values=self.cache(model, "streamingllm:start_size=4,recent_size=60"))
        with self.assertRaisesRegex(NotImplementedError, "input_ids"):
            model(inputs_embeds=torch.zeros(1, 2, 64), past_key_values=self.cache(model))
        with self.assertRaisesRegex(RuntimeError, "another model"):
            model(ids, past_key_values=self.cache(tiny()))
        with self.assertRaisesRegex(kvasir.ClosedError, "closed"):
            cache = self.cache(model)
            cache.close()
            model(ids, past_key_values=cache)

    def test_a_process_that_is_killed_leaves_no_byte(self):
        before = self.session.stats()
        with subprocess.Popen(
                [sys.executable, "-B", __file__, "hang", str(self.daemon.control),
                 str(self.daemon.data), "full"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True) as child:
            self.assertEqual(child.stdout.readline(), "rows\n")
            self.assertGreater(self.session.stats().held_bytes, before.held_bytes)
            child.kill()
            child.wait()
        # The daemon hears of it when the kernel tells: asked until then, at most a thousand times.
        for _ in range(1000):
            now = self.session.stats()
            if (now.held_bytes, now.charged_bytes, now.sequences) == (
                    before.held_bytes, before.charged_bytes, before.sequences):
                break
        self.assertEqual((now.held_bytes, now.sequences), (before.held_bytes, before.sequences))
        self.assertEqual(now.charged_bytes, before.charged_bytes)


def child(verb, control, data, policy):
    model, ids = tiny(), prompt_of(200)
    connect = {"control_socket": control, "data_socket": data}
    with KvasirCache(model, policy, prompt=ids, connect=connect,
                     separator_token_ids=SEPARATORS) as cache:
        if verb == "hang":
            generate(model, ids, cache)
            print("rows", flush=True)
            sys.stdin.read()
            return
        print(generate(model, ids, cache))
        assert cache.publish_error is None, cache.publish_error


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("publish", "hang"):
        child(*sys.argv[1:])
    else:
        main()
