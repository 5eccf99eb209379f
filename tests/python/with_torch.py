"""Runs a test in the pinned environment: `with_torch.py newest|oldest NAME_test.py`.

KVASIR_PYTHON_ENV names it, as ./dev test does. Exit status 77, a skip, without it.
"""
import os
import pathlib
import sys

folder = pathlib.Path(os.environ.get("KVASIR_PYTHON_ENV") or "/nonexistent")
python = folder / "bin" / "python"
if not python.exists():
    print("skipped: no environment with torch; ./dev setup --python installs it (about 6 GB)")
    sys.exit(77)
if sys.argv[1] == "oldest":
    os.environ["PYTHONPATH"] += f":{folder / 'oldest'}"
test = pathlib.Path(__file__).with_name(sys.argv[2])
os.execv(python, [python, "-B", "-W", "ignore", test])
