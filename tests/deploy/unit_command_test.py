#!/usr/bin/env python3
"""Runs the command line of kvasird.service as an unprivileged user, with the sample configuration.

usage: unit_command_test.py KVASIRD

The command is the unit's own; only the program's folder is replaced. A private mount namespace gives
the process the unit's folders: an empty /run/kvasir of its own and the sample file as
/etc/kvasir/kvasird.toml. It must report READY=1 as Type=notify wants it, have both sockets open, and
end with status 0 on SIGTERM. Needs root for the namespace; exits with 77 (skipped) without.
"""
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
DEADLINE_S = 100  # the pool of the sample is prefaulted on a busy machine

# Runs inside the namespace: folders, then the command as nobody (65534) without any group.
INSIDE = r"""
set -eu
mount -t tmpfs tmpfs /run
mkdir -m 0755 /run/kvasir /etc/kvasir 2>/dev/null || mkdir -p /run/kvasir
chown 65534:65534 /run/kvasir
mount -t tmpfs tmpfs /etc/kvasir
cp "$SAMPLE" /etc/kvasir/kvasird.toml
chmod 0644 /etc/kvasir/kvasird.toml
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --no-new-privs "$@"
"""


def fail(text):
    print(f"FAILED: {text}", file=sys.stderr)
    sys.exit(1)


def unit_command(program):
    text = (DEPLOY / "kvasird.service").read_text()
    words = re.search(r"(?m)^ExecStart=(.+)$", text).group(1).split()
    if words[0] != "/usr/bin/kvasird":
        fail(f"the unit starts {words[0]}")
    return [program] + words[1:]


def expect_sockets(pid):
    """The daemon's own view of /run: the namespace is not ours."""
    folder = pathlib.Path(f"/proc/{pid}/root/run/kvasir")
    for name in ("control.sock", "data.sock"):
        if not (folder / name).is_socket():
            fail(f"{name} is not there after READY=1")
    if os.stat(f"/proc/{pid}").st_uid != 65534:
        fail("the daemon does not run as the unprivileged user")


def main():
    if os.geteuid() != 0:
        print("skipped: the mount namespace needs root")
        sys.exit(77)
    made = pathlib.Path("/etc/kvasir")
    had = made.is_dir()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        # A copy that nobody may execute: build trees can lie below a private home.
        program = pathlib.Path(folder) / "kvasird"
        program.write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
        program.chmod(0o755)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{folder}/notify")
        os.chmod(f"{folder}/notify", 0o777)
        notify.settimeout(DEADLINE_S)
        environment = dict(
            os.environ, NOTIFY_SOCKET=f"{folder}/notify",
            SAMPLE=str(DEPLOY / "kvasird.example.toml"),
        )
        inner = ["sh", "-c", INSIDE, "sh", *unit_command(str(program))]
        daemon = subprocess.Popen(["unshare", "--mount", *inner], env=environment)
        try:
            ready = False
            while not ready:
                ready = b"READY=1" in notify.recv(4096).split(b"\n")
            expect_sockets(daemon.pid)
            daemon.send_signal(signal.SIGTERM)
            status = daemon.wait(timeout=30)
            if status != 0:
                fail(f"exit status {status} after SIGTERM")
        except socket.timeout:
            fail(f"no READY=1 within {DEADLINE_S} s (exit status {daemon.poll()})")
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
            if not had and made.is_dir():
                made.rmdir()
    print("the unit's command line works as an unprivileged user")


main()
