"""LMCache's server on one host, by the client that its own benchmark has: the CPU fallback path.

The engine copies between its tensors and a pool in shared memory ("engine_driven"), which was the
faster of its two ways here. Prompts and single blocks want chunks of different sizes, a setting of the
server: each has a server of its own. It has no way to fetch a layer.
"""

import dataclasses
import glob
import os
import sys
import time

from driver import (BLOCKS, LAYERS, PREFIX, PREFIX_SEED, SLICE, SMALL, SMALL_BLOCKS, SMALL_SEED, free_port,
                    serve, sum_of, timed, words)

ENVIRONMENT = {"LMCACHE_DISABLE_BANNER": "1", "LMCACHE_LOG_LEVEL": "ERROR", "LMCACHE_TRACK_USAGE": "false",
               "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
# The environment's own script names the folder that pip made it in.
PROGRAM = "import sys; from lmcache.cli.main import main; sys.argv[0] = 'lmcache'; main()"
BLOCK_TOKENS, HALF = 16, SLICE // 2
POOL_GB, SMALL_POOL_GB = 2, 0.25
# Eviction is behind the stores; one that finds no room is lost without an error. So it begins early, and
# in steps that are small enough to leave the prompt and what was stored last.
EVICTION = ["--eviction-policy", "LRU", "--eviction-trigger-watermark", "0.65", "--eviction-ratio", "0.1",
            "--l1-read-ttl-seconds", "2"]
TRIES = 10


class Worker:
    """A client with the tensors of one model; pages are blocks of 16 tokens, the first is not used."""

    def __init__(self, servers, name, layers, pages, chunk, pool):
        port = free_port()
        self.pool = f"kvasir_bench_{os.getpid()}_{name}"
        servers.start([sys.executable, "-c", PROGRAM, "server", "--host", "127.0.0.1", "--port", str(port),
                       "--http-host", "127.0.0.1", "--http-port", str(free_port()), "--l1-size-gb", str(pool),
                       "--no-l1-use-lazy", *EVICTION, "--chunk-size", str(chunk),
                       "--max-workers", "2", "--disable-observability", "--supported-transfer-mode",
                       "engine_driven", "--shm-name", self.pool], port, ENVIRONMENT)
        from lmcache.cli.commands.bench.server_bench.client import ServerBenchClient
        from lmcache.cli.commands.bench.server_bench.config import BenchConfig
        self.tokens = pages * BLOCK_TOKENS
        self.client = ServerBenchClient(BenchConfig(
            rpc_url=f"tcp://127.0.0.1:{port}", http_url="", mode="cpu", transfer_mode="engine_driven",
            tp_size=1, use_mla=False, num_tokens=self.tokens, num_blocks=pages + 1, block_size=BLOCK_TOKENS,
            kvcache_shape_spec=f"(2,{pages + 1},{BLOCK_TOKENS},8,128):float16:{layers}"), lambda _: None)
        self.client.start()
        import torch
        # By layer: [K and V][page][words].
        self.layers = [tensor.view(torch.int64).numpy().view("uint64").reshape(2, pages + 1, -1)
                       for tensor in self.client._workers[0].kv_caches.values()]
        self.requests = 0

    def request(self, number):
        self.requests += 1
        made = self.client.create_request(number, f"request{self.requests}", "")
        return dataclasses.replace(made, block_offset=1)

    def write(self, values):
        """Rows as [page][layer][K and V]."""
        rows = values.reshape(-1, len(self.layers), 2, HALF // 8)
        for layer, tensor in enumerate(self.layers):
            for half in range(2):
                tensor[half, 1:] = rows[:, layer, half]

    def sum(self):
        return sum_of((tensor[half, 1:].ctypes.data, tensor[half, 1:].nbytes)
                      for tensor in self.layers for half in range(2))

    def store(self, number):
        """Milliseconds of the store that was found again."""
        for _ in range(TRIES):
            request = self.request(number)
            took, result = timed(lambda: self.client.store(request, 0, self.tokens))
            self.client.end_session(request)
            if not result.succeeded:
                raise RuntimeError(f"store failed: {result}")
            if self.found(number):
                return took
        raise RuntimeError(f"stored {TRIES} times and not there: sequence={number}")

    def found(self, number):
        """What has just been stored may not be found at once."""
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            if self.look(number, must=False)[1]:
                return True
            time.sleep(0.02)
        print(f"lmcache: stored and not there: sequence={number}", file=sys.stderr)
        return False

    def look(self, number, must=True):
        request = self.request(number)
        took, found = timed(lambda: self.client.lookup(request))
        if found.is_full_hit:
            self.retrieve(request)  # lets go what the lookup holds
        elif must:
            raise RuntimeError(f"not there: {found}")
        self.client.end_session(request)
        return took, int(found.is_full_hit)

    def retrieve(self, request):
        if not self.client.retrieve(request, 0, self.tokens).succeeded:
            raise RuntimeError("retrieve failed")

    def fetch(self, number):
        for tensor in self.layers:
            tensor[:] = 0
        request = self.request(number)

        def fetch():
            found = self.client.lookup(request)
            if not found.is_full_hit:
                raise RuntimeError(f"not there: {found}")
            self.retrieve(request)
            return self.sum()
        took, total = timed(fetch)
        self.client.end_session(request)
        return took, total


class LmCache:
    about = "client=Python, engine_driven through shared memory, CPU fallback path"

    def __init__(self, servers):
        os.environ.update(ENVIRONMENT)
        self.blocks = Worker(servers, "small", 4, 1, BLOCK_TOKENS, SMALL_POOL_GB)
        small = words(SMALL_BLOCKS * SMALL, SMALL_SEED)
        for number in range(SMALL_BLOCKS):
            self.blocks.write(small[number * SMALL // 8:][:SMALL // 8])
            self.blocks.store(number)
        self.prompt = Worker(servers, "prompt", LAYERS, BLOCKS, 256, POOL_GB)
        self.prompt.write(words(PREFIX, PREFIX_SEED))
        # Until all of the pool has been touched, and gives the oldest away.
        self.stored = 1
        for self.stored in range(1, int(POOL_GB * 2) + 2):
            self.prompt.store(self.stored)
        self.prompt.store(0)

    def prefix(self):
        try:
            return self.prompt.fetch(0)
        except RuntimeError as error:
            print(f"lmcache: stored again: {error}", file=sys.stderr)
            self.prompt.store(0)
            return self.prompt.fetch(0)

    def small(self, number):
        return self.blocks.fetch(number)

    def look(self, number):
        return self.blocks.look(number)

    def store(self):
        self.stored += 1
        took = self.prompt.store(self.stored)
        return took, self.prompt.fetch(self.stored)[1]

    def close(self):
        for worker in (self.prompt, self.blocks):
            for left in glob.glob(f"/dev/shm/*{worker.pool}*"):
                os.unlink(left)


if __name__ == "__main__":
    serve(LmCache)
