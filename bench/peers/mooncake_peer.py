"""Mooncake's store on one host: a master, the process that has the memory, and its "dummy" client.

Its fastest way here is the hot cache in shared memory: what has been fetched before lies there once
more, and the client is given addresses. A value takes a whole place of it, so that what is fetched once
stays out: a layer is copied into a registered buffer, from values of its own size.
"""

import ctypes
import importlib.util
import os

from driver import (BLOCK, BLOCKS, LAYERS, MIB, PREFIX, PREFIX_SEED, SLICE, SMALL, SMALL_BLOCKS, SMALL_SEED,
                    free_port, serve, sum_of, timed, words)

HOT = {"MC_STORE_LOCAL_HOT_CACHE_SIZE": str(512 * BLOCK), "MC_STORE_LOCAL_HOT_BLOCK_SIZE": str(BLOCK),
       "MC_STORE_LOCAL_HOT_CACHE_USE_SHM": "1", "MC_STORE_LOCAL_HOT_ADMISSION_THRESHOLD": "2"}
INTO = BLOCKS * SLICE  # a buffer of a layer's size


class Mooncake:
    about = "client=Python, a dummy client with the hot cache in shared memory"

    def __init__(self, servers):
        package = importlib.util.find_spec("mooncake").submodule_search_locations[0]
        master, port = free_port(), free_port()
        log = {"GLOG_minloglevel": "2"}
        servers.start([os.path.join(package, "mooncake_master"), "-rpc_port", str(master), "-metrics_port",
                       str(free_port()), "-metrics_host", "127.0.0.1", "-rpc_address", "127.0.0.1",
                       "-default_kv_lease_ttl", "3600000"], master, log)
        servers.start([os.path.join(package, "mooncake_client"), "-host", "127.0.0.1", "-port", str(port),
                       "-global_segment_size", "2 GB", "-local_buffer_size", "64 MB",
                       "-master_server_address", f"127.0.0.1:{master}", "-metadata_server", "P2PHANDSHAKE",
                       "-protocol", "tcp", "-threads", "2"], port, {**HOT, **log})
        from mooncake.store import MooncakeDistributedStore
        self.store_ = MooncakeDistributedStore()
        check(self.store_.setup_dummy(PREFIX + 2 * INTO, 64 * MIB, f"127.0.0.1:{port}"), "setup_dummy")
        self.rows = self.buffer(PREFIX)
        self.into = self.buffer(INTO)
        write(self.into, words(SMALL_BLOCKS * SMALL, SMALL_SEED)[:INTO // 8])
        self.blocks = [f"block:{block}" for block in range(BLOCKS)]
        self.stores = 0
        small = words(SMALL_BLOCKS * SMALL, SMALL_SEED)
        for first in range(0, SMALL_BLOCKS, INTO // SMALL):
            some = range(first, min(SMALL_BLOCKS, first + INTO // SMALL))
            write(self.into, small[first * SMALL // 8:][:len(some) * SMALL // 8])
            self.put([f"small:{n}" for n in some], self.into, SMALL)
        write(self.rows, words(PREFIX, PREFIX_SEED))
        self.put(self.blocks, self.rows, BLOCK)
        for block in range(BLOCKS):
            self.put([f"slice:{layer}:{block}" for layer in range(LAYERS)], self.rows + block * BLOCK, SLICE)
        # The hot cache takes what is fetched twice.
        for _ in range(2):
            for block in self.blocks:
                self.get([block], BLOCK)
            for n in range(SMALL_BLOCKS):
                self.get([f"small:{n}"], SMALL)

    def buffer(self, size):
        address = self.store_.alloc_from_mem_pool(size)
        check(self.store_.register_buffer(address, size), "register_buffer")
        ctypes.memset(address, 1, size)
        return address

    def put(self, keys, address, size):
        codes = self.store_.batch_put_from(keys, [address + i * size for i in range(len(keys))],
                                           [size] * len(keys))
        check(max(map(abs, codes)), "batch_put_from")

    def get(self, keys, size):
        sizes = self.store_.batch_get_into(keys, [self.into + i * size for i in range(len(keys))],
                                           [size] * len(keys))
        check(sizes.count(size) - len(keys), "batch_get_into")

    def prefix(self):
        def fetch():
            found = self.store_.batch_get_buffer(self.blocks)
            return found, sum_of((block.ptr(), block.size()) for block in found)
        took, (_, total) = timed(fetch)
        return took, total

    def layer(self, layer):
        keys = [f"slice:{layer}:{block}" for block in range(BLOCKS)]
        addresses, sizes = [self.into + i * SLICE for i in range(BLOCKS)], [SLICE] * BLOCKS

        def fetch():
            self.store_.batch_get_into(keys, addresses, sizes)
            return sum_of([(self.into, INTO)])
        return timed(fetch)

    def small(self, number):
        key = f"small:{number}"

        def fetch():
            found = self.store_.get_buffer(key)
            return found, sum_of([(found.ptr(), found.size())])
        took, (_, total) = timed(fetch)
        return took, total

    def look(self, number):
        took, there = timed(lambda: self.store_.is_exist(f"small:{number}"))
        check(there - 1, "is_exist")
        return took, 0

    def store(self):
        self.stores += 1
        stored = [f"stored:{self.stores}:{block}" for block in range(BLOCKS)]
        addresses, sizes = [self.rows + i * BLOCK for i in range(BLOCKS)], [BLOCK] * BLOCKS
        took, codes = timed(lambda: self.store_.batch_put_from(stored, addresses, sizes))
        check(max(map(abs, codes)), "batch_put_from")
        total = 0
        for first in range(0, BLOCKS, INTO // BLOCK):
            some = stored[first:first + INTO // BLOCK]
            self.get(some, BLOCK)
            total += sum_of([(self.into, len(some) * BLOCK)])
        self.store_.batch_remove(stored, True)
        return took, total % (1 << 64)


def write(address, values):
    ctypes.memmove(address, values.ctypes.data, values.nbytes)


def check(code, what):
    if code != 0:
        raise RuntimeError(f"{what} failed: code={code}")


if __name__ == "__main__":
    serve(Mooncake)
