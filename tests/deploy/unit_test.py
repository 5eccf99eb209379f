#!/usr/bin/env python3
"""The systemd units: valid, hardened, and still able to do their work.

Offline: needs systemd-analyze, no running systemd. The unit's programs need not be installed, a copy
with a harmless command is verified instead.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
UNITS = ("kvasird.service", "kvasird.socket", "kvasird-data.socket")
EXPOSURE_MAX = 2.0
# Set, they would hide peers' uids and cgroups, or the GPUs, from the daemon.
MUST_STAY_UNSET = ("PrivateUsers", "ProtectProc", "ProcSubset", "PrivateDevices")
# What the daemon calls beyond the everyday: placement, locking, descriptors, waiting for peers and
# for memory pressure.
NEEDED_CALLS = {
    "mbind", "set_mempolicy", "mlock", "mlock2", "madvise", "memfd_create", "ftruncate",
    "fallocate", "fcntl", "sendmsg", "recvmsg", "futex", "pidfd_open", "eventfd2", "epoll_wait", "poll",
    "inotify_init1", "inotify_add_watch",
    "prlimit64", "sched_setaffinity", "getrandom",
}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def exposure(unit):
    """Overall exposure of a unit file by systemd-analyze."""
    result = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    if not match:
        raise AssertionError(f"no exposure in: {result.stdout}{result.stderr}")
    return float(match.group(1))


def settings(text):
    """(key, value) pairs of a unit, in order."""
    lines = (line.strip() for line in text.splitlines())
    return [tuple(l.split("=", 1)) for l in lines if "=" in l and not l.startswith(("#", ";"))]


def expand(name):
    """System calls that a filter's word stands for; groups name other groups."""
    if not name.startswith("@"):
        return {name}
    lines = run("systemd-analyze", "syscall-filter", "--no-pager", name).stdout.splitlines()[1:]
    words = (line.strip() for line in lines)
    return set().union(*(expand(w) for w in words if w and not w.startswith("#")))


def allowed_calls(text):
    """What SystemCallFilter= lines allow, read in order as systemd does."""
    calls = set()
    for key, value in settings(text):
        if key != "SystemCallFilter":
            continue
        names = set().union(*(expand(word) for word in value.lstrip("~").split()))
        calls = calls - names if value.startswith("~") else calls | names
    return calls


class UnitTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.text = (DEPLOY / "kvasird.service").read_text()

    def write(self, text, name="kvasird.service"):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_verify(self):
        for name in UNITS:
            text = (DEPLOY / name).read_text()
            self.write(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M), name)
        for name in UNITS:
            result = run("systemd-analyze", "verify", "--man=no", str(self.folder / name))
            ours = [l for l in result.stderr.splitlines() if "kvasird" in l]
            self.assertEqual((result.returncode, ours), (0, []), result.stderr)

    def test_verify_notices_a_bad_line(self):
        text = self.text.replace("ExecStart=/usr/bin/kvasird", "ExecStart=/bin/true")
        path = self.write(text.replace("PrivateTmp=yes", "PrivateTmpp=yes"))
        self.assertIn("PrivateTmpp", run("systemd-analyze", "verify", "--man=no", str(path)).stderr)

    def test_exposure(self):
        self.assertLessEqual(exposure(self.write(self.text)), EXPOSURE_MAX)

    def test_exposure_with_gpus(self):
        """The drop-in opens devices and nothing else worth a point."""
        extra = settings((DEPLOY / "kvasird.service.d/gpu.conf").read_text())
        lines = "\n".join(f"{key}={value}" for key, value in extra if key != "After")
        merged = self.text.replace("[Install]", f"{lines}\n[Install]")
        self.assertLessEqual(exposure(self.write(merged)), EXPOSURE_MAX + 0.2)

    def test_a_soft_unit_would_be_noticed(self):
        bare = "[Service]\nExecStart=/usr/bin/kvasird\n"
        self.assertGreater(exposure(self.write(bare)), EXPOSURE_MAX)

    def test_daemon_can_see_peers_and_gpus(self):
        for file in (DEPLOY / "kvasird.service", DEPLOY / "kvasird.service.d/gpu.conf"):
            keys = {key for key, _ in settings(file.read_text())}
            self.assertEqual(keys.intersection(MUST_STAY_UNSET), set())

    def test_needed_calls_are_allowed(self):
        self.assertEqual(NEEDED_CALLS - allowed_calls(self.text), set())

    def test_dangerous_calls_are_not(self):
        calls = allowed_calls(self.text)
        for name in ("reboot", "init_module", "ptrace", "mount", "setuid", "bpf", "swapon"):
            self.assertNotIn(name, calls)

    def test_memory_pressure_can_be_watched(self):
        """Figures of the cgroup are read there, and a trigger is written to /proc/pressure."""
        values = dict(settings(self.text))
        self.assertEqual(values["ProtectControlGroups"], "yes")  # not "private" or "strict"
        for key in ("InaccessiblePaths", "TemporaryFileSystem", "RootDirectory"):
            self.assertNotIn(key, values)

    def test_limits_and_identity(self):
        values = dict(settings(self.text))
        self.assertEqual(values["LimitMEMLOCK"], "infinity")
        self.assertEqual(values["User"], "kvasir")
        self.assertEqual(values["CapabilityBoundingSet"], "")
        sysusers = (DEPLOY / "sysusers.d/kvasir.conf").read_text()
        self.assertRegex(sysusers, r"(?m)^u kvasir ")

    def test_sysusers_and_tmpfiles_are_accepted(self):
        """Into an empty root; tmpfiles reads the user that sysusers has just made there."""
        if subprocess.run(["id", "-u"], capture_output=True, check=True).stdout.strip() != b"0":
            self.skipTest("needs root: files of another user are made below a temporary root")
        root = f"--root={self.folder}"
        (self.folder / "etc").mkdir()
        for tool, file in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
            create = ["--create"] if tool == "tmpfiles" else []
            result = run(f"systemd-{tool}", root, *create, str(DEPLOY / file / "kvasir.conf"))
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("kvasir:", (self.folder / "etc/passwd").read_text())
        self.assertEqual((self.folder / "run/kvasir").stat().st_mode & 0o777, 0o755)


if __name__ == "__main__":
    if not shutil.which("systemd-analyze"):
        print("skipped: no systemd-analyze")
        sys.exit(77)
    unittest.main()
