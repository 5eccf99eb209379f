#!/usr/bin/env python3
"""Model checks of the command ring: `run_models.py fast|slow`, exhaustive within the bounds given.

Each variant of command_ring.pml either has no error and at least as many states as are told here,
or is broken on purpose and has to be caught, by the kind of error that is told. The second half
shows that the first one means something. Needs spin and gcc; exit status 0 = as expected, 1 = not,
77 = they are not here.
"""
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).with_name("command_ring.pml")
DEADLOCK = "invalid end state"  # a lost wake-up, or a peer's death that nobody sees
WRONG = "assertion violated"
PASS = {
    "fast": [
        # name, definitions, states at least
        ("as specified, TSO", "", 500_000),
        ("as specified, PSO", "-DPSO", 2_000_000),
        ("two commands a turn", "-DBATCH=2", 500_000),
        ("more completions than submissions", "-DCQ_CAP=4", 1_000_000),
        ("hostile engine", "-DHOSTILE", 200_000),
        ("either side killed", "-DCRASH -DN=2", 1_000_000),
    ],
    "slow": [
        ("five commands, counters wrap twice", "-DN=5 -DMOD=4", 3_000_000),
        ("more completions than submissions, PSO", "-DCQ_CAP=4 -DPSO", 3_000_000),
        ("either side killed, three commands", "-DCRASH", 5_000_000),
        ("either side killed, PSO", "-DCRASH -DPSO", 20_000_000),
        ("submitter and reader apart", "-DTWO_THREADS", 5_000_000),
        ("submitter and reader apart, PSO", "-DTWO_THREADS -DPSO", 20_000_000),
        ("submitter and reader apart, killed", "-DTWO_THREADS -DCRASH -DN=2", 10_000_000),
    ],
}
CAUGHT = [
    ("no fence of the engine's submission", "-DNO_FENCE_SQ_E", DEADLOCK),
    ("no fence of the daemon's sleep", "-DNO_FENCE_SQ_D", DEADLOCK),
    ("no fence of the engine's sleep", "-DNO_FENCE_CQ_E", DEADLOCK),
    ("no fence of the daemon's completion", "-DNO_FENCE_CQ_D", DEADLOCK),
    ("no second look of the daemon", "-DNO_SECOND_LOOK_D", DEADLOCK),
    ("no second look of the engine", "-DNO_SECOND_LOOK_E", DEADLOCK),
    ("submission tail without release", "-DPSO -DRELAXED_SQ_TAIL", WRONG),
    ("completion tail without release", "-DPSO -DRELAXED_CQ_TAIL", WRONG),
    ("head before the copy", "-DHEAD_EARLY -DCQ_CAP=4", WRONG),
    ("credit before the completion is read", "-DTWO_THREADS -DCREDIT_EARLY", WRONG),
    ("no credit", "-DNO_CREDIT", DEADLOCK),
    ("sleep before the ring that is due", "-DNO_RING_BEFORE_SLEEP", DEADLOCK),
    ("engine does not look for a hang-up", "-DCRASH -DNO_HANGUP_E", DEADLOCK),
    ("daemon does not look for a hang-up", "-DCRASH -DNO_HANGUP_D", DEADLOCK),
    ("submission tail without bound", "-DHOSTILE -DNO_BOUND_SQ", WRONG),
    ("completion head without bound", "-DHOSTILE -DNO_BOUND_CQ", WRONG),
    ("entry read again after it was judged", "-DHOSTILE -DREAD_TWICE", WRONG),
]


def check(definitions):
    """Errors, stored states and the first error's text of one exhaustive run."""
    with tempfile.TemporaryDirectory(prefix="kvasir-model-") as folder:

        def run(*command):
            result = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=1500
            )
            return result.returncode, result.stdout + result.stderr

        shutil.copy(MODEL, folder)
        for command in (
            ("spin", "-a", *definitions.split(), MODEL.name),
            ("gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=1024", "pan.c", "-o", "pan"),
        ):
            code, text = run(*command)
            if code != 0:
                return None, 0, text.strip()
        _, text = run("./pan", "-m1000000")
        errors = re.search(r"errors: (\d+)", text)
        states = re.search(r"(\d+) states, stored", text)
        cut = re.search(r"search not completed|max search depth too small|out of memory", text, re.I)
        first = re.search(r"pan:\d+: (.*)", text)
        if not errors or not states or (cut and errors.group(1) == "0"):
            return None, 0, text.strip()
        return int(errors.group(1)), int(states.group(1)), first.group(1) if first else ""


def judge(variant):
    """(as expected, a line about it)."""
    name, definitions, expected = variant
    errors, states, text = check(definitions)
    found = f"{states:,} states" + (f", {text}" if text else "")
    if errors is None:
        return False, f"FAILED   {name}: not checked: {text}"
    if isinstance(expected, int):
        if errors == 0 and states >= expected:
            return True, f"pass     {name}: {found}"
        return False, f"FAILED   {name}: {found}; expected no error and {expected:,} states or more"
    if errors > 0 and text.startswith(expected):
        return True, f"caught   {name}: {found}"
    return False, f"FAILED   {name}: {found}; expected: {expected}"


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in PASS:
        print(__doc__)
        return 2
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            print(f"SKIP: {tool} is not installed; run ./dev setup")
            return 77
    variants = PASS[sys.argv[1]] + (CAUGHT if sys.argv[1] == "fast" else [])
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for good, line in pool.map(judge, variants):
            failed += not good
            print(line, flush=True)
    print(f"{len(variants) - failed} as expected, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
