#!/usr/bin/env python3
"""./dev bundle --gpu: what is carried along, what is refused, and what `run` makes of a machine.

The programs are small ones that are compiled here and shell scripts; nothing needs CUDA or a GPU.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/gpu_bundle"))
import make  # noqa: E402

PASSES = "[ RUN      ] A.b\\n[       OK ] A.b (1 ms)\\n[  PASSED  ] 1 test.\\n"
SKIPS = (
    "[ RUN      ] A.b\\nx_test.cc:9: Skipped\\nno GPU: cudaErrorInsufficientDriver\\n\\n"
    "[  SKIPPED ] A.b (0 ms)\\n[  PASSED  ] 0 tests.\\n[  SKIPPED ] 1 test, listed below:\\n"
    "[  SKIPPED ] A.b\\n"
)
FAILS = (
    "[ RUN      ] A.b\\nx_test.cc:9: Failure\\n[  FAILED  ] A.b (1 ms)\\n"
    "[  FAILED  ] 1 test, listed below:\\n[  FAILED  ] A.b\\n"
)


class BundleTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = pathlib.Path(scratch.name)
        self.build = self.top / "build"
        (self.build / "bin").mkdir(parents=True)
        self.folder = self.top / "bundle"

    def compile(self, *flags):
        """A program in build/bin that needs a library of its own; returns the library."""
        path = self.build / "libkvtest.so"
        flags = flags or ("-Wl,-soname,libkvtest.so",)
        source = self.top / "part.c"
        source.write_text("int part(void) { return 0; }\n")
        subprocess.run(["gcc", "-shared", "-fPIC", "-g", "-o", path, source, *flags], check=True)
        source.write_text("int part(void);\nint main(void) { return part(); }\n")
        subprocess.run(
            ["gcc", "-g", "-o", self.build / "bin/program", source, path,
             f"-Wl,-rpath,{self.build}"],
            check=True,
        )
        return path

    def make(self, *names):
        arguments = [str(self.build), str(self.folder), "commit=abc", "runtime=13.0", *names]
        return make.main(arguments)

    def unpack(self):
        plain = self.top / "plain"
        plain.mkdir()
        archive = self.folder / make.ARCHIVE
        subprocess.run(["tar", "-xzf", archive, "-C", plain], check=True)
        return plain

    def test_carries_what_a_bare_machine_lacks(self):
        library = self.compile()
        self.assertEqual(self.make("test:program"), 0)
        plain = self.unpack()
        self.assertEqual([p.name for p in (plain / "lib").iterdir()], ["libkvtest.so"])
        self.assertEqual((self.folder / "tests").read_text(), "program\n")
        facts = (self.folder / "facts").read_text()
        self.assertRegex(facts, r"commit=abc\nruntime=13\.0\nglibc=2\.\d+")
        # It runs without the tree that it came from.
        library.unlink()
        env = {"LD_LIBRARY_PATH": str(plain / "lib")}
        program = plain / "bin/program"
        self.assertEqual(subprocess.run([program], env=env, check=False).returncode, 0)
        sections = subprocess.run(
            ["readelf", "-W", "-S", program], capture_output=True, text=True, check=True
        )
        self.assertNotIn(".debug_info", sections.stdout)
        self.assertEqual(make.main(["--check", str(self.folder)]), 0)

    def test_a_library_that_is_nowhere_is_told_and_an_old_bundle_kept(self):
        library = self.compile()
        self.assertEqual(self.make("program"), 0)
        library.unlink()
        self.assertEqual(self.make("program"), 1)
        self.assertEqual(make.main(["--check", str(self.folder)]), 0)

    def test_a_library_of_the_build_tree_is_found_out(self):
        self.compile()
        self.assertEqual(self.make("program"), 0)
        plain = self.unpack()
        make.check_libraries(plain)
        (plain / "lib/libkvtest.so").unlink()
        with self.assertRaisesRegex(make.Fault, "program takes libkvtest.so from .*/build/"):
            make.check_libraries(plain)

    def test_a_library_by_its_path_is_refused(self):
        self.compile("-g")  # no soname: the linker writes down the path
        self.assertEqual(self.make("program"), 1)
        self.assertFalse(self.folder.exists())

    def test_a_folder_that_is_too_large_is_refused(self):
        self.compile()
        self.assertEqual(self.make("program"), 0)
        with open(self.folder / "large", "wb") as file:
            file.truncate((make.LIMIT_MIB << 20) + 1)
        with self.assertRaisesRegex(make.Fault, "too large"):
            make.check(self.folder)

    def test_a_program_that_is_not_built_is_told(self):
        self.assertEqual(self.make("program"), 1)
        self.assertFalse(self.folder.exists())


class RunTest(unittest.TestCase):
    """The script over programs that print what googletest prints."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = pathlib.Path(scratch.name)
        (self.top / "bin").mkdir()
        (self.top / "run").write_bytes((ROOT / "scripts/gpu_bundle/run").read_bytes())
        (self.top / "run").chmod(0o755)
        self.facts("2.2.5")
        self.program("kvasirctl", "OK    GPU: none\\n")
        self.program("bench_gpu", "no GPU\\n", 1)

    def facts(self, glibc):
        (self.top / "facts").write_text(f"commit=abc\nruntime=13.0\nglibc={glibc}\n")

    def program(self, name, text, rc=0, more=""):
        path = self.top / "bin" / name
        path.write_text(f"#!/bin/sh\nprintf '{text}'\n{more}\nexit {rc}\n")
        path.chmod(0o755)

    def run_with(self, *tests):
        (self.top / "tests").write_text("".join(f"{name}\n" for name in tests))
        names = [self.top / make.ARCHIVE, "-C", self.top, "bin"]
        subprocess.run(["tar", "-czf", *names], check=True)
        # Only what the script itself needs: a compute-sanitizer of this machine is not meant.
        env = {"PATH": f"{self.top}/tools:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
        result = subprocess.run(
            [self.top / "run", self.top / "out"],
            env=env, capture_output=True, text=True, check=False, timeout=60,
        )
        report = (self.top / "out/report.txt").read_text()
        self.assertEqual(report, result.stdout)
        self.assertFalse((self.top / "out/programs").exists())
        return result.returncode, report

    def test_without_a_gpu_all_is_skipped_with_the_reason(self):
        self.program("a_test", SKIPS)
        rc, report = self.run_with("a_test")
        self.assertEqual(rc, 0)
        self.assertEqual(report.splitlines()[-1], "0 passed, 0 failed, 2 skipped")
        self.assertIn("skipped: no GPU: cudaErrorInsufficientDriver", report)
        self.assertIn("commit abc, CUDA runtime 13.0", report)
        self.assertIn("GPU: none", report)
        self.assertIn("kernel: Linux", report)

    def test_counts_cases_and_writes_the_figures(self):
        self.program("a_test", PASSES)
        self.program("bench_gpu", "a row\\n", 0, 'echo "{}" >"$KVASIR_BENCH_JSON"')
        rc, report = self.run_with("a_test", "a_test")
        self.assertEqual(rc, 0)
        self.assertEqual(report.splitlines()[-1], "3 passed, 0 failed, 0 skipped")
        self.assertTrue((self.top / "out/gpu.json").is_file())

    def test_a_failed_case_fails_the_run_and_is_shown(self):
        self.program("a_test", FAILS, 1)
        self.program("b_test", SKIPS)
        rc, report = self.run_with("a_test", "b_test")
        self.assertEqual(rc, 1)
        # The benchmark as well: something ran on a GPU, so it had to.
        self.assertEqual(report.splitlines()[-1], "0 passed, 2 failed, 1 skipped")
        self.assertIn("x_test.cc:9: Failure", report)

    def test_a_program_that_dies_has_failed(self):
        self.program("a_test", PASSES, 0, "kill -SEGV $$")
        self.program("silent_test", "")
        _, report = self.run_with("a_test", "silent_test")
        self.assertIn("a_test: 1 passed, 1 failed", report)
        self.assertIn("silent_test: 0 passed, 1 failed", report)

    def test_the_sanitizer_runs_where_it_is(self):
        self.program("a_test", PASSES)
        self.program("b_processes_test", PASSES)
        tool = self.top / "tools/compute-sanitizer"
        tool.parent.mkdir()
        tool.write_text('#!/bin/sh\nshift 2\n"$@"\necho "ERROR SUMMARY: 1 error"\nexit 9\n')
        tool.chmod(0o755)
        _, report = self.run_with("a_test", "b_processes_test")
        self.assertEqual(report.count("a_test: 1 passed, 1 failed, 0 skipped, exit status 9"), 1)
        self.assertEqual(report.count("b_processes_test:"), 1)

    def test_an_older_c_library_is_told(self):
        self.facts("99.0")
        self.program("a_test", PASSES)
        rc, report = self.run_with("a_test")
        self.assertEqual(rc, 1)
        self.assertIn("older than the bundle's programs need", report)


if __name__ == "__main__":
    unittest.main()
