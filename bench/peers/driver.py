"""What the drivers of other projects' Python clients share: the words that bench_peers says to them.

A driver starts the project's server, fills it, writes "ready ABOUT", and then answers lines:

    prefix | layer N | small N... | look N... | store

by "ok MS:SUM MS:SUM..." with one pair for each call, timed in here, so that the way to bench_peers
costs nothing; by "no" for what the project does not have, or "error WHY". It ends when its input does,
and takes its servers with it. The bytes are made here, as bench_peers makes them (peers_bench.cc).
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import numpy as np

MIB = 1 << 20
LAYERS, BLOCKS, SMALL_BLOCKS = 32, 256, 192
SLICE = 64 << 10  # K and V of a block in a layer
BLOCK, SMALL = LAYERS * SLICE, 4 * SLICE
PREFIX = BLOCKS * BLOCK
PREFIX_SEED, SMALL_SEED = 1, 2

_sum = ctypes.CDLL(os.environ["KVASIR_BENCH_SUM"]).kvasir_sum_words
_sum.restype = ctypes.c_uint64
_sum.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MASK = (1 << 64) - 1


def sum_of(pieces):
    """The sum of all words of (address, bytes)."""
    return sum(_sum(address, size // 8) for address, size in pieces) & _MASK


def words(size, seed):
    """As MakeData() in peers_bench.cc."""
    at = np.arange(size // 8, dtype=np.uint64)
    at *= np.uint64(8)
    at += np.uint64(seed)
    at *= np.uint64(0x9E3779B97F4A7C15)
    return at


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Servers:
    """Child processes, which end with this one however it ends."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="kvasir-peer-")
        self.processes = []

    def start(self, command, port, environment=None, seconds=60):
        log = os.path.join(self.folder.name, f"{len(self.processes)}.log")
        with open(log, "wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder.name,
                env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent)
        self.processes.append(process)
        until = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    with open(log, encoding="utf-8", errors="replace") as text:
                        tail = text.read()[-500:]
                    raise RuntimeError(f"{command[0]} does not serve: {tail}") from None
                time.sleep(0.05)

    def end(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.folder.cleanup()


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def timed(call):
    """Milliseconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1e3, result


def serve(make):
    """Runs a driver. `make(servers)` returns an object with `about` and the verbs as methods; each
    takes a number where it has one and returns (milliseconds, sum)."""
    # Libraries print to standard output as they like: bench_peers has it under another number.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # An interrupt is for bench_peers, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    servers = Servers()
    peer = None
    try:
        peer = make(servers)
        print("ready", peer.about, file=out)
        for line in iter(sys.stdin.readline, ""):
            verb, *numbers = line.split()
            call = getattr(peer, verb, None)
            if call is None:
                print("no", file=out)
                continue
            answers = [call(int(n)) for n in numbers] if numbers else [call()]
            print("ok", *(f"{ms:.6f}:{total}" for ms, total in answers), file=out)
    except Exception as error:  # noqa: BLE001 - whatever another project raises is the answer
        traceback.print_exc()
        print("error", " ".join(str(error).split())[:400] or type(error).__name__, file=out)
    finally:
        if hasattr(peer, "close"):
            peer.close()
        servers.end()
        out.flush()
        os._exit(0)  # threads of the client may wait for a server that is gone
