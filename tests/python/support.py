"""A daemon of this test's own, and a small model that writes rows that can be told apart."""
import contextlib
import os
import pathlib
import subprocess
import tempfile
import unittest

import numpy as np

import kvasir

LAYERS, HEADS, DIM, VOCABULARY = 3, 2, 8, 100


class Daemon:
    """kvasird on sockets in a folder of its own, until stop()."""

    def __init__(self, pool="256MiB", device=""):
        """`device`: as [[gpu]] names it, of a pool "gpu0"; "": there is none."""
        self._folder = tempfile.TemporaryDirectory(prefix="kvasir-python-test.")
        folder = pathlib.Path(self._folder.name)
        self.control, self.data = folder / "control.sock", folder / "data.sock"
        config = folder / "kvasird.toml"
        config.write_text(
            f'[server]\ncontrol_socket = "{self.control}"\ndata_socket = "{self.data}"\n'
            f'[memory]\npool_bytes = "{pool}"\nready_bytes = "8MiB"\n'
            + (f'[[gpu]]\nname = "gpu0"\ndevice = "{device}"\npool_bytes = "32MiB"\n'
               'extent_bytes = "4MiB"\nrecent_extent_bytes = "2MiB"\n' if device else "") +
            f'[[tenant]]\nname = "test"\nuids = [{os.getuid()}]\n')
        self.process = subprocess.Popen(
            [os.environ["KVASIRD"], f"--config={config}"], stderr=subprocess.PIPE, text=True)
        for _ in range(1000):
            with contextlib.suppress(kvasir.KvasirError):
                self.connect().close()
                return
            if self.process.poll() is not None:
                raise RuntimeError(f"kvasird did not start: {self.process.stderr.read()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        self.stop()
        raise RuntimeError("kvasird does not answer")

    def connect(self, **options):
        options.setdefault("deadline_s", 30)
        return kvasir.Session(control_socket=self.control, data_socket=self.data, **options)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self._folder.cleanup()


class DaemonTest(unittest.TestCase):
    """One daemon for the class."""

    POOL = "256MiB"  # what was closed is free again only later
    DEVICE = ""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls.POOL, cls.DEVICE)
        cls.addClassCleanup(cls.daemon.stop)

    def setUp(self):
        self.session = self.daemon.connect()
        self.addCleanup(self.session.close)

    def register(self, session=None, **changes):
        return (session or self.session).register_model(spec(**changes))


def spec(**changes):
    values = {
        "layers": [kvasir.LayerSpec(HEADS, DIM, DIM)] * LAYERS, "kv_type": kvasir.KvType.F32,
        "weights_digest": b"sixteen bytes!!!", "name": "python", "vocabulary_size": VOCABULARY,
        "separator_token_ids": [1, 2], "slots_per_block": 16, **changes}
    return kvasir.ModelSpec(**values)


def rows_of(first, count, layer, plane):
    """K (plane 0) or V of rows, [row][head][dim]: no two elements of a model are equal."""
    row = np.arange(first, first + count, dtype=np.float32)[:, None, None]
    head = np.arange(HEADS, dtype=np.float32)[None, :, None]
    dim = np.arange(DIM, dtype=np.float32)[None, None, :]
    return ((row * LAYERS + layer) * 2 + plane) * HEADS * DIM + head * DIM + dim


def write_rows(step):
    for layer, view in enumerate(step):
        view.write(step.row, rows_of(step.row, step.count, layer, 0),
                   rows_of(step.row, step.count, layer, 1))


def tokens_of(count):
    return [i * 7 % (VOCABULARY - 10) + 5 for i in range(count)]


def main():
    unittest.main(verbosity=2)
