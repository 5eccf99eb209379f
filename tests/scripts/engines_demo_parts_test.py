"""Parts of the demonstration of several engines that need no engine: GGUF, tables, readability."""
import pathlib
import struct
import sys
import tempfile
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts" / "engines_demo"))
import gguf  # noqa: E402
import stage  # noqa: E402
import users  # noqa: E402

TOP = """\
kvasird 0.1.0  up 4 s  interval 2.0 s
pool 640.0 MiB  charged 77.5 MiB  held 57.4 MiB  free 562.5 MiB  ready 128.0 MiB

TENANT  OF LIMIT             CHARGED      HELD  SEEN    HIT
team-b  [#####.....]  50%  112.5 MiB  73.2 MiB     0  48.9%
team-a  [#.........]   7%   25.4 MiB  11.3 MiB   256      -
"""


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


class GgufTest(unittest.TestCase):
    def test_blocks(self):
        q = np.arange(32, dtype=np.int8) - 16
        got = gguf.dequantise(8, np.float16(0.5).tobytes() + q.tobytes(), 32)
        np.testing.assert_array_equal(got, q * np.float32(0.5))
        # Low halves are elements 0 to 15, high ones 16 to 31.
        low, high = np.arange(16, dtype=np.uint8), np.arange(16, dtype=np.uint8)[::-1]
        raw = np.array([2, -1], np.float16).tobytes() + (low | high << 4).tobytes()
        got = gguf.dequantise(3, raw, 32)
        np.testing.assert_array_equal(got, np.concatenate([low, high]) * np.float32(2) - 1)
        with self.assertRaisesRegex(ValueError, "ggml_type=2"):
            gguf.dequantise(2, raw, 32)

    def test_a_file(self):
        tensor = np.arange(12, dtype=np.float32)
        head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 3)
        head += text("a.count") + struct.pack("<II", 4, 7)
        head += text("a.name") + struct.pack("<I", 8) + text("seven")
        head += text("a.list") + struct.pack("<IIQ3H", 9, 2, 3, 1, 2, 3)
        head += text("weight") + struct.pack("<IQQIQ", 2, 4, 3, 0, 0)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(head + bytes(-len(head) % 32) + tensor.tobytes())
            file.flush()
            read = gguf.File(file.name)
        self.assertEqual(read.keys, {"a.count": 7, "a.name": "seven", "a.list": [1, 2, 3]})
        np.testing.assert_array_equal(read.tensors["weight"], tensor.reshape(3, 4))

    def test_rotary_order(self):
        # Of two heads with four rows: neighbours (0, 1), (2, 3) become halves (0, 2), (1, 3).
        got = gguf._halves(np.arange(8)[:, None], 2)[:, 0].tolist()
        self.assertEqual(got, [0, 2, 1, 3, 4, 6, 5, 7])


class TableTest(unittest.TestCase):
    def test_cells_of_top(self):
        rows = stage.rows_of(TOP)
        self.assertEqual(rows["team-b"], {"TENANT": "team-b", "OF LIMIT": "[#####.....]  50%",
                                          "CHARGED": "112.5 MiB", "HELD": "73.2 MiB", "SEEN": "0",
                                          "HIT": "48.9%"})
        self.assertEqual(rows["team-a"]["HIT"], "-")
        self.assertEqual(stage.rows_of("kvasird 0.1.0"), {})

    def test_some_columns(self):
        self.assertEqual(stage.only(TOP, "TENANT", "OF LIMIT", "HIT").splitlines()[3:], [
            "TENANT           OF LIMIT    HIT",
            "team-b  [#####.....]  50%  48.9%",
            "team-a  [#.........]   7%      -"])


class ReadableTest(unittest.TestCase):
    def test_what_is_closed_is_copied(self):
        with tempfile.TemporaryDirectory() as closed, tempfile.TemporaryDirectory() as to:
            closed, to = pathlib.Path(closed).resolve(), pathlib.Path(to)  # mode 0700
            (closed / "program").write_text("text")
            (closed / "program").chmod(0o700)
            shared = users.Shared(to, mounts=False)
            copy = shared.copy(closed / "program")
            self.assertEqual((copy.read_text(), copy.stat().st_mode & 0o777), ("text", 0o755))
            self.assertIsNone(shared.mount(closed))
            folder = shared.copy(closed)
            self.assertEqual((folder / "program").read_text(), "text")
            self.assertEqual((folder / "program").stat().st_mode & 0o777, 0o755)
            shared.close()
            self.assertTrue((closed / "program").exists())
        everybodys = pathlib.Path("/usr/bin/env").resolve()
        self.assertEqual(users.Shared(None, mounts=False).copy(everybodys), everybodys)


if __name__ == "__main__":
    unittest.main(verbosity=2)
