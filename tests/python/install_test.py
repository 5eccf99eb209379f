"""`pip install ./client/python` fetches nothing, and what it installs is what the tree has."""
import ctypes
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from kvasir import _abi

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "client" / "python"


@unittest.skipUnless(importlib.util.find_spec("pip"), "this Python has no pip")
class InstallTest(unittest.TestCase):
    def test_pip_installs_it_without_a_network(self):
        with tempfile.TemporaryDirectory() as folder:
            # An index that is nobody's: whoever asks for a package fails.
            environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "",
                           "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                           "PIP_NO_CACHE_DIR": "1"}
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
                            folder, PACKAGE], env=environment, check=True)
            sources = {p.relative_to(PACKAGE / "src"): p.read_bytes()
                       for p in (PACKAGE / "src").rglob("*") if p.suffix in (".py", ".typed")}
            self.assertIn(pathlib.Path("kvasir/py.typed"), sources)
            for name, data in sources.items():
                self.assertEqual((pathlib.Path(folder) / name).read_bytes(), data)
            said = subprocess.run(
                [sys.executable, "-c", "import kvasir; print(kvasir.__file__); "
                 "print(kvasir.digest_file(kvasir.__file__).hex())"],
                env={**os.environ, "PYTHONPATH": folder}, check=True, capture_output=True,
                text=True)
            self.assertTrue(said.stdout.startswith(folder))


class AbiTest(unittest.TestCase):
    """The structs of _abi.py beside what the C compiler makes of the headers."""

    def test_structs_and_functions_are_the_headers(self):
        names = ["kvasir.h", "kvasir_tenant.h", "kvasir_device.h", "kvasir_async.h"]
        headers = "".join((ROOT / "client" / "c" / name).read_text() for name in names)
        structs = {kind.__name__: kind for kind in vars(_abi).values()
                   if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}
        ours = []
        for name, kind in structs.items():
            self.assertIn(f"}} {name};", headers)
            ours.append((name, ctypes.sizeof(kind),
                         [(field[0], getattr(kind, field[0]).offset) for field in kind._fields_]))
        program = "#include <stdio.h>\n"
        program += "".join(f'#include "client/c/{name}"\n' for name in names)
        program += "int main(void) {\n"
        for name, _, fields in ours:
            program += f'printf("{name} %zu", sizeof({name}));\n'
            for field, _ in fields:
                program += f'printf(" {field} %zu", offsetof({name}, {field}));\n'
            program += 'puts("");\n'
        program += "return 0; }\n"
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "sizes.c"
            source.write_text(program)
            subprocess.run(["cc", "-I", ROOT, source, "-o", f"{folder}/sizes"], check=True)
            said = subprocess.run([f"{folder}/sizes"], check=True, capture_output=True, text=True)
        expected = "".join(
            f"{name} {size}" + "".join(f" {field} {offset}" for field, offset in fields) + "\n"
            for name, size, fields in ours)
        self.assertEqual(said.stdout, expected)

        declared = set(re.findall(r"KVASIR_API [^;]*?kvasir_(\w+)\(", headers))
        bound = set(_abi.CALLS) | set(_abi.LOOKS) | {"close_device", "disconnect", "hold_memory"}
        self.assertEqual(declared, bound)


if __name__ == "__main__":
    unittest.main(verbosity=2)
