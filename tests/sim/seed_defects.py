#!/usr/bin/env python3
"""seed_defects.py ROOT DEFECTS.json OUT: copies of the daemon's sources with defects that can be switched on.

Each defect replaces one text of one source, which must occur once; DEFECT in the replacement is a condition that holds
while that defect is on (tests/sim/seeded_defect.h). So nothing of it is in the sources themselves, and a copy without a
defect that is on does what the source does. `--list` prints the sources, one a line, and writes nothing.
Exit status 1, with the number of the defect: a text is not there, or more than once; then it is to be found anew.
"""
import json
import pathlib
import sys

PREAMBLE = '#include "tests/sim/seeded_defect.h"\n#line 1 "{file}"\n'


def main(arguments):
    listing = arguments[0] == "--list"
    if listing:
        arguments = arguments[1:]
    root, table = pathlib.Path(arguments[0]), pathlib.Path(arguments[1])
    defects = json.loads(table.read_text(encoding="utf-8"))
    files = sorted({defect["file"] for defect in defects})
    if listing:
        print("\n".join(files))
        return 0
    out = pathlib.Path(arguments[2])
    for file in files:
        text = (root / file).read_text(encoding="utf-8")
        for defect in (one for one in defects if one["file"] == file):
            count = text.count(defect["find"])
            if count != 1:
                print(
                    f"{table}: defect {defect['number']}: its text occurs {count} times in {file}, not once",
                    file=sys.stderr,
                )
                return 1
            condition = f"(::kvasir::sim::seeded_defect == {defect['number']})"
            text = text.replace(defect["find"], defect["replace"].replace("DEFECT", condition))
        path = out / file.replace("/", "_")
        path.write_text(PREAMBLE.format(file=root / file) + text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
