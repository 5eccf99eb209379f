"""Builds the wheel of this folder: pure Python, so a zip file with a list of what is in it.

A PEP 517 and PEP 660 backend of its own, so that `pip install ./client/python` fetches nothing.
"""
import base64
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same tree gives the same wheel


def _field(name):
    # pyproject.toml is ours and simple; Python has a parser of TOML only from 3.11 on.
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(rf'^{name} = "([^"]*)"', text, re.MULTILINE).group(1)


def _list(name):
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"([^"]*)"', re.search(rf"^{name} = \[(.*)\]", text, re.MULTILINE).group(1))


def _metadata():
    lines = [
        "Metadata-Version: 2.1",
        "Name: kvasir",
        f"Version: {_field('version')}",
        f"Summary: {_field('description')}",
        f"Requires-Python: {_field('requires-python')}",
        *(f"Requires-Dist: {one}" for one in _list("dependencies")),
        "Provides-Extra: transformers",
        *(f'Requires-Dist: {one} ; extra == "transformers"' for one in _list("transformers")),
        "Description-Content-Type: text/markdown",
        "",
        (_ROOT / "README.md").read_text(encoding="utf-8"),
    ]
    return "\n".join(lines).encode()


def _write_wheel(folder, files):
    info = f"kvasir-{_field('version')}.dist-info"
    files[f"{info}/METADATA"] = _metadata()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: kvasir_build\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    record = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = ("".join(record) + f"{info}/RECORD,,\n").encode()
    wheel = f"kvasir-{_field('version')}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    source = _ROOT / "src"
    files = {}
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".typed"):
            files[path.relative_to(source).as_posix()] = path.read_bytes()
    return _write_wheel(wheel_directory, files)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _write_wheel(wheel_directory, {"kvasir.pth": f"{_ROOT / 'src'}\n".encode()})


def build_sdist(sdist_directory, config_settings=None):
    base = f"kvasir-{_field('version')}"
    with tarfile.open(pathlib.Path(sdist_directory) / f"{base}.tar.gz", "w:gz") as archive:
        for name in ("pyproject.toml", "README.md", "backend", "src"):
            archive.add(_ROOT / name, f"{base}/{name}",
                        filter=lambda entry: None if "__pycache__" in entry.name else entry)
        data = _metadata()
        entry = tarfile.TarInfo(f"{base}/PKG-INFO")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return f"{base}.tar.gz"
