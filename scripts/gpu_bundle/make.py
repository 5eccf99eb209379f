#!/usr/bin/env python3
"""./dev bundle --gpu: the CUDA build as one folder for a machine that has a driver and no registry.

make.py BUILD FOLDER [KEY=VALUE | PROGRAM | test:PROGRAM]... makes FOLDER of programs.tar.gz, `run` and
a README. In the archive are the programs (names in BUILD/bin), stripped, as bin/ and the shared
libraries that they need as lib/: as plain files they would be over the limit. `run` runs those that are tests, and names the values in its report (commit,
runtime). The C library and its loader are the machine's own; `run` checks that they are new enough.
Replaces FOLDER only when all is well; exit status 1 and the reason where it is not: a library that
is missing, a folder over LIMIT_MIB.
make.py --check FOLDER looks at a finished bundle in the same way.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LIMIT_MIB = 60
ARCHIVE = "programs.tar.gz"
# What comes with every glibc and has to fit the loader, so it is never carried along.
GLIBC = re.compile(
    r"^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libanl)\.so"
)
HERE = pathlib.Path(__file__).resolve().parent
README = """# Kvasir's GPU tests and benchmarks
Programs of the CUDA build for a Linux machine with an NVIDIA driver. Nothing has to be installed:

    ./run [FOLDER]      # all tests, bench_gpu; writes FOLDER/report.txt and FOLDER/gpu.json (default: report)

It unpacks programs.tar.gz ({plain} MiB) in that folder, and removes the programs at the end.

The machine needs glibc {glibc} or newer, and a driver for CUDA {runtime} or newer for anything to run on the GPU;
without one every test is skipped with the reason. compute-sanitizer is used where it is on PATH.
The archive has kvasird and kvasirctl as well (with LD_LIBRARY_PATH=lib). There is no model in here: the
smallest one (98 MB) is over the {limit} MiB that this folder may have.
"""


class Fault(Exception):
    """What is wrong with a bundle; its text is for people."""


def needed_libraries(path, env=None):
    """{soname: path, or None where the loader finds none} of all that `path` loads."""
    text = subprocess.run(
        ["ldd", path], env=env, capture_output=True, text=True, check=False
    ).stdout
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == "=>":
            found[words[0]] = None if words[2] == "not" else words[2]
        elif words and "/" in words[0] and not GLIBC.match(words[0].rsplit("/", 1)[1]):
            found[words[0]] = words[0]  # linked by its path: found there or nowhere
    return found


def glibc_of(path):
    """The newest version of glibc's symbols that a file asks for, as numbers."""
    text = subprocess.run(
        ["readelf", "-W", "--version-info", path], capture_output=True, text=True, check=True
    ).stdout
    versions = re.findall(r"Name: GLIBC_(\d+(?:\.\d+)+)", text)
    return max((tuple(map(int, v.split("."))) for v in versions), default=(2, 2, 5))


def strip_to(source, target):
    """A copy without symbols. Debug information alone is most of a program's size."""
    subprocess.run(["strip", "--strip-unneeded", "-o", target, source], check=True)
    os.chmod(target, 0o755)


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_libraries(folder):
    """Raises Fault unless the programs in folder/bin find all they load in folder/lib."""
    lib = (folder / "lib").resolve()
    env = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(lib)}
    for program in sorted((folder / "bin").iterdir()):
        for name, path in needed_libraries(program, env).items():
            if GLIBC.match(name):
                continue
            if path is None or pathlib.Path(path).resolve().parent != lib:
                raise Fault(f"{program.name} takes {name} from {path or 'nowhere'}, not the bundle")


def check(folder):
    """Raises Fault, or returns the folder's bytes."""
    size = bytes_of(folder)
    if size > LIMIT_MIB << 20:
        raise Fault(f"the bundle is too large: bytes={size} limit={LIMIT_MIB << 20}")
    if not os.access(folder / "run", os.X_OK):
        raise Fault("run is missing")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["tar", "-xzf", folder / ARCHIVE, "-C", scratch], check=True)
        check_libraries(pathlib.Path(scratch))
    return size


def gather(build, folder, programs):
    """Copies to folder/bin and folder/lib. Raises Fault."""
    (folder / "bin").mkdir()
    (folder / "lib").mkdir()
    libraries = {}
    for name in programs:
        source = build / "bin" / name
        if not source.is_file():
            raise Fault(f"{source} is not built")
        for soname, path in needed_libraries(source).items():
            if GLIBC.match(soname):
                continue
            if path is None:
                raise Fault(f"{name} needs {soname}, which is nowhere")
            if "/" in soname:
                raise Fault(f"{name} needs {soname} at that very path")
            libraries[soname] = path
        strip_to(source, folder / "bin" / name)
    for soname, path in libraries.items():
        strip_to(pathlib.Path(path).resolve(), folder / "lib" / soname)


def make(build, folder, programs, tests, facts):
    """Names of all programs, and of those that `run` runs. Raises Fault, or returns the bytes."""
    work = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = pathlib.Path(scratch)
        gather(build, plain, programs)
        files = [*(plain / "bin").iterdir(), *(plain / "lib").iterdir()]
        facts = dict(facts, glibc=".".join(map(str, max(glibc_of(path) for path in files))))
        subprocess.run(["tar", "-czf", work / ARCHIVE, "-C", plain, "bin", "lib"], check=True)
        text = README.format(
            glibc=facts["glibc"],
            runtime=facts.get("runtime"),
            limit=LIMIT_MIB,
            plain=bytes_of(plain) >> 20,
        )
    (work / "README.md").write_text(text)
    (work / "facts").write_text("".join(f"{key}={value}\n" for key, value in facts.items()))
    (work / "tests").write_text("".join(f"{name}\n" for name in sorted(tests)))
    shutil.copy(HERE / "run", work / "run")
    size = check(work)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return size


def main(arguments):
    try:
        if len(arguments) == 2 and arguments[0] == "--check":
            folder = pathlib.Path(arguments[1])
            size = check(folder)
        elif len(arguments) >= 3 and not arguments[0].startswith("-"):
            build, folder = map(pathlib.Path, arguments[:2])
            names = [a for a in arguments[2:] if "=" not in a]
            size = make(
                build,
                folder,
                programs=[name.removeprefix("test:") for name in names],
                tests=[name.removeprefix("test:") for name in names if name.startswith("test:")],
                facts=dict(a.split("=", 1) for a in arguments[2:] if "=" in a),
            )
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Fault as fault:
        print(f"bundle: {fault}", file=sys.stderr)
        return 1
    print(f"{folder}: {size / (1 << 20):.1f} MiB of at most {LIMIT_MIB}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
