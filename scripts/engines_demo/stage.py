"""The daemon of the demonstration, processes of its users, and the one place that ends them."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from users import Shared, as_uid, make_users

CONFIGURATION = """\
[server]
control_socket = "{control}"
data_socket = "{data}"
[admin]
uids = [{daemon}]              # whom kvasirctl runs as; in a container nobody is administrator else
[memory]
pool_bytes = "640MiB"
ready_bytes = "128MiB"
lock = "off"                   # users without rights may lock 8 MiB
pressure = "off"
[[tenant]]
name = "team-a"
uids = [{a}]
limit_bytes = "384MiB"
reserved_bytes = "256MiB"
weight = 2
[[tenant]]
name = "team-b"
uids = [{b}]
limit_bytes = "224MiB"
reserved_bytes = "224MiB"      # llama.cpp cannot go on without its cache: nothing of it is borrowed
weight = 1
"""
LONGEST_S = 300  # that anything may take; only a run that hangs meets it


class Failed(Exception):
    """What was to be seen was not seen."""


class Stage:
    """Ends every process and removes every file that it made, in close()."""

    def __init__(self, paths, mounts):
        """paths: what programs, libraries and the model are in; see __main__.py."""
        temporary = pathlib.Path(tempfile.gettempdir())
        if not all(folder.stat().st_mode & 0o1 for folder in (temporary, *temporary.parents)):
            temporary = pathlib.Path("/tmp")  # the users have to get in
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kvasir-demo.", dir=temporary))
        self._processes, self._shared = [], Shared(self.folder, mounts)
        self.share, self.share_large = self._shared.copy, self._shared.mount
        self.paths, self.logs, self._runs = paths, self.folder / "logs", 0
        self.daemon = self.top = None

    def prepare(self):
        """Users, and the files that they share."""
        self.folder.chmod(0o755)
        self.logs.mkdir(mode=0o700)
        self.daemon_user, self.a, self.b = make_users(["daemon", "a", "b"], self.folder)
        self.daemon_user.folder.chmod(0o755)
        self.control, self.data = (self.daemon_user.folder / name
                                   for name in ("control.sock", "data.sock"))
        self.bin = {name: self.share(self.paths["bin"] / name)
                    for name in ("kvasird", "kvasirctl", "kvasir-generate", "kvasir-llama-slot")}
        self.lib, self.model = self.share(self.paths["lib"]), self.share(self.paths["model"])

    # --- processes

    def start(self, user, name, argv, stdin=None, **environment):
        """Starts a program as `user`; .out and .err of the process are the files it writes."""
        self._runs += 1
        out, err = (self.logs / f"{self._runs}-{name}.{kind}" for kind in ("out", "err"))
        with open(out, "wb") as to_out, open(err, "wb") as to_err:
            # A session of its own: Ctrl-C is for the demonstration, which then ends the others.
            process = subprocess.Popen(
                as_uid(user.uid) + [str(word) for word in argv],
                stdin=stdin or subprocess.DEVNULL, stdout=to_out, stderr=to_err,
                start_new_session=True, cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(user.folder),
                     "TMPDIR": str(user.folder), "KVASIR_CONTROL_SOCKET": str(self.control),
                     **{key: str(value) for key, value in environment.items()}})
        process.name, process.out, process.err = name, out, err
        self._processes.append(process)
        return process

    def finish(self, process, expected=0):
        """Waits for the end of a process. Returns what it wrote to standard output."""
        code = process.wait(LONGEST_S)
        if code != expected:
            raise Failed(f"{process.name} ended with status {code}: {tail(process.err)}")
        return process.out.read_text()

    def until(self, what, see, *alive):
        """Asks see() until it says something true, while the processes `alive` live."""
        deadline = time.monotonic() + LONGEST_S
        while not (seen := see()):
            for process in alive:
                if process.poll() is not None:
                    raise Failed(f"{process.name} ended too early: {tail(process.err)}")
            if time.monotonic() > deadline:
                raise Failed(f"never came: {what}")
            time.sleep(0.05)
        return seen

    def end(self, process, expected=0):
        """Asks a process to end, and waits."""
        process.send_signal(signal.SIGTERM)
        self.finish(process, expected)

    # --- the daemon

    def start_daemon(self):
        file = self.folder / "kvasird.toml"
        file.write_text(CONFIGURATION.format(
            control=self.control, data=self.data, daemon=self.daemon_user.uid, a=self.a.uid,
            b=self.b.uid))
        self.daemon = self.start(self.daemon_user, "kvasird",
                                 [self.bin["kvasird"], f"--config={file}"])
        self.until("a daemon that serves", lambda: self.control.exists() and self._healthy(),
                   self.daemon)

    def _healthy(self):
        return self.start(self.daemon_user, "health",
                          [self.bin["kvasirctl"], "health"]).wait(LONGEST_S) == 0

    def ctl(self, *words):
        """What kvasirctl prints for an administrator."""
        return self.finish(self.start(self.daemon_user, f"kvasirctl-{words[0]}",
                                      [self.bin["kvasirctl"], *words]))

    def stats(self):
        """Exact figures of each tenant, by name, from `kvasirctl stats --output=json`."""
        tenants = json.loads(self.ctl("stats", "--output=json"))["tenants"]
        return {tenant["tenant"]: flat(tenant) for tenant in tenants}

    def start_top(self):
        self.top = self.start(self.daemon_user, "kvasirctl-top",
                              [self.bin["kvasirctl"], "top", "--interval=2", "--count=1000000"])

    def tops(self):
        """What kvasirctl top has shown so far, one text a table."""
        tables = re.split(r"(?m)^(?=kvasird )", self.top.out.read_text())[1:]
        return [table for table in tables if len(cells_of(table)) == 3 and table.endswith("\n")]

    def top_with(self, what, wanted, first=0):
        """The first table of kvasirctl top, from number `first`, of which wanted(rows) is true.

        rows: by tenant, its cells by title. Waits for it.
        """
        def find():
            return next((t for t in self.tops()[first:] if wanted(rows_of(t))), None)
        return self.until(f"a table of kvasirctl top with {what}", find, self.top)

    def close(self):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        self._shared.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def why(self):
        """For who has to find out: the last that the daemon said."""
        return tail(self.daemon.err, 15) if self.daemon else ""


def flat(tenant):
    """Numbers of a tenant of GetStats, those of host memory among the others."""
    numbers = {**tenant, **tenant["host"]}
    return {key: int(value) for key, value in numbers.items()
            if isinstance(value, (int, str)) and str(value).isdigit()}


def cells_of(text):
    """Cells of the table in what kvasirctl printed, line by line, the titles first."""
    begin = text.find("TENANT ")
    lines = text[begin:].splitlines() if begin >= 0 else []
    split = [re.split(r"\s{2,}", re.sub(r"\]\s+", "] ", line.strip())) for line in lines if line]
    return [[re.sub(r"\] (\d+%)", lambda bar: f"] {bar[1]:>4}", cell) for cell in line]
            for line in split]


def rows_of(text):
    cells = cells_of(text)
    return {line[0]: dict(zip(cells[0], line)) for line in cells[1:]}


def only(text, *titles):
    """That text with these columns of its table alone: lines that fit a terminal."""
    all_titles, *lines = cells_of(text)
    at = [all_titles.index(title) for title in titles]
    return text[:text.find("TENANT ")] + columns([[line[i] for i in at]
                                                  for line in [all_titles, *lines]])


def columns(lines):
    """A table: the first column to the left, all others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    return "\n".join("  ".join([cells[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]) for cells in lines)


def tail(path, lines=5):
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def write_for(user, path, data):
    """A file in the folder of a user, who owns it."""
    path.write_bytes(data)
    os.chown(path, user.uid, user.uid)
    return path
