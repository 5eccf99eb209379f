"""The users of the demonstration, and how they reach what belongs to the one who started it.

A process that is root, be it of a user namespace of its own, becomes other users by setpriv. A
folder such as /root is closed to them: they get copies of what is small, and of the rest a mount in
a namespace that ends with the demonstration. No capability is given to anybody.
"""
import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile

_INSIDE = "KVASIR_DEMO_INSIDE"  # set, to "mounts" or "no mounts", where that is settled
_MOUNTS = ["unshare", "--mount", "--propagation=private"]
_PASSED_ON = ("KVASIR_", "TMPDIR", "LANG", "LC_", "TERM", "PATH", "COLUMNS")
_HOW = ("several users are needed, and this one can be no other: run it as root, or install the "
        "package uidmap and give this user lines in /etc/subuid and /etc/subgid, or let sudo work "
        "without a password; then again: ./dev demo engines")


class CannotRun(Exception):
    """Nothing is wrong, but it cannot be shown here."""


def _works(command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def as_uid(uid):
    """Command prefix: one user, no other group, no capability, gone with the demonstration."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all",
            "--no-new-privs", "--pdeathsig=KILL", "--"]


def become_several():
    """Goes on as a process that can be several users. Returns whether it can mount, too."""
    if _INSIDE in os.environ:
        return os.environ[_INSIDE] == "mounts"
    if os.geteuid() == 0:
        ways = [(_MOUNTS, True), ([], False)]
    else:
        sudo = ["sudo", "-n"]
        ways = [(sudo + _MOUNTS, True), (sudo, False),
                (["unshare", "--user", "--map-root-user", "--map-auto"] + _MOUNTS[1:], True)]
    for way, mounts in ways:
        if not _works(way + as_uid(_unused_uids(1)[0]) + ["true"]):
            continue
        passed_on = [f"{name}={value}" for name, value in os.environ.items()
                     if name.startswith(_PASSED_ON)]
        passed_on.append(f"{_INSIDE}={'mounts' if mounts else 'no mounts'}")
        command = way + ["env"] + passed_on + [sys.executable, "-B", *sys.argv]
        os.execvp(command[0], command)
    raise CannotRun(_HOW)


def _unused_uids(count):
    """Users that no account and no process has."""
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            taken.add(process.stat().st_uid)
    free = [uid for uid in range(12100, 12400) if uid not in taken]
    return free[:count]


class User:
    def __init__(self, name, uid, folder):
        self.name, self.uid, self.folder = name, uid, folder
        folder.mkdir(mode=0o700)
        os.chown(folder, uid, uid)


def make_users(names, folder):
    uids = _unused_uids(len(names))
    return [User(name, uid, folder / name) for name, uid in zip(names, uids)]


def _open_to_all(path):
    """Whether any user can read a file, or a folder and what lies directly in it."""
    wanted = 0o5 if path.is_dir() else 0o4
    around = all(parent.stat().st_mode & 0o1 for parent in path.parents)
    below = path.iterdir() if path.is_dir() else []
    return around and path.stat().st_mode & wanted == wanted and all(
        entry.stat().st_mode & 0o4 for entry in below)


class Shared:
    """Files of the one who started it, where every user can read them."""

    def __init__(self, folder, mounts):
        self._folder, self._mounts, self._mounted = folder, mounts, []

    def copy(self, path):
        """A path by which all can read `path`: a file, or a folder that is not large."""
        path = pathlib.Path(path).resolve()
        if _open_to_all(path):
            return path
        to = pathlib.Path(tempfile.mkdtemp(dir=self._folder)) / path.name
        if path.is_dir():
            shutil.copytree(path, to, symlinks=True)
        else:
            shutil.copyfile(path, to)
            shutil.copymode(path, to)
        subprocess.run(["chmod", "-R", "a+rX", str(to.parent)], check=True)
        return to

    def mount(self, path):
        """The same of a large folder. None where it cannot be had: no right to mount."""
        path = pathlib.Path(path).resolve()
        if _open_to_all(path):
            return path
        if not self._mounts:
            return None
        # Not inside of what close() of the stage deletes, whatever happens to the mount.
        to = pathlib.Path(tempfile.mkdtemp(prefix="kvasir-demo-mount."))
        to.chmod(0o755)
        self._mounted.append(to)
        done = subprocess.run(["mount", "--bind", str(path), str(to)], check=False)
        return to if done.returncode == 0 and _open_to_all(to) else None

    def close(self):
        for path in self._mounted:
            subprocess.run(["umount", str(path)], stderr=subprocess.DEVNULL, check=False)
            with contextlib.suppress(OSError):
                path.rmdir()
