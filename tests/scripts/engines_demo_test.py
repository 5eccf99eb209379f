"""`./dev demo engines` as a whole: all claims are seen, and nothing stays behind, Ctrl-C or not.

Skipped (exit status 77) without what ./dev llama builds, and where one cannot be several users.
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).parents[2] / "scripts" / "engines_demo"


class DemoTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="kvasir-demo-test.")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.folder.chmod(0o755)  # users of the demonstration have to get in

    def start(self):
        return subprocess.Popen([sys.executable, "-B", PROGRAM], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, start_new_session=True,
                                env={**os.environ, "TMPDIR": str(self.folder)})

    def assert_nothing_left(self):
        self.assertEqual(list(self.folder.iterdir()), [])
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue  # ended meanwhile
            self.assertNotIn(os.fsencode(self.folder), command)

    def test_all_is_seen(self):
        with self.start() as process:
            out, err = process.communicate()
        if process.returncode == 2:
            print(err, end="")
            sys.exit(77)
        print(out)
        self.assertEqual((process.returncode, err), (0, ""))
        self.assertNotIn("NOT SEEN", out)
        self.assertNotIn("\033", out)  # this is no terminal
        for part in ("team-a", "SOONER BY", "no memory for llama.cpp", "claims were seen"):
            self.assertIn(part, out)
        self.assert_nothing_left()

    def test_interrupted(self):
        with self.start() as process:
            for line in process.stdout:
                if "kvasirctl top while they work" in line:
                    break
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        if process.returncode != 2:
            self.assertEqual(process.returncode, 130, err)
        self.assert_nothing_left()


if __name__ == "__main__":
    for name in ("KVASIR_LLAMA_TOOLS", "KVASIR_LLAMA_TOOLS_PLUGIN"):
        if not os.path.exists(os.environ.get(name, "")):
            print(f"skipped: no {name}: ./dev llama builds llama.cpp's programs")
            sys.exit(77)
    unittest.main(verbosity=2)
