#!/usr/bin/env python3
"""The table at the end of the demonstration, and build/demo.json.

usage: demo_table.py FOLDER OUT NAME...: FOLDER has NAME.json (what kvasir-generate counted from its side)
and NAME.stats.json (what kvasirctl stats said over gRPC while the sequence lived). The two must agree
to the byte; exit status 1 if they do not.
"""
import json
import pathlib
import sys


def main():
    folder, out, names = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    rows, agree = [], True
    for name in names:
        run = json.loads((folder / f"{name}.json").read_text())
        stats = json.loads((folder / f"{name}.stats.json").read_text())
        tenant = next(t for t in stats["tenants"] if t["tenant"] == "demo")
        held = int(tenant["host"]["held_bytes"])
        kept, seen = int(tenant["rows_kept"]), int(tenant["rows_seen"])
        same = (held, kept, seen) == (run["held_bytes"], run["tokens_kept"], run["tokens_seen"])
        agree &= same
        rows.append({
            "name": name, "value": run["held_bytes"], "unit": "bytes", "reference": None,
            "ratio": None, "better": "lower", "goal": None, "retention": run["retention"],
            "tokens_seen": run["tokens_seen"], "tokens_kept": run["tokens_kept"],
            "held_bytes": run["held_bytes"], "ms_per_token": run["decode_ms_per_token"],
            "perplexity": run["perplexity"], "kvasirctl_held_bytes": held, "agrees": same,
        })
    full = rows[0]
    for row in rows:
        row["reference"] = full["held_bytes"]
        row["ratio"] = row["held_bytes"] / full["held_bytes"]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"schema": 1, "rows": rows}, indent=2) + "\n")

    print(f"\n{'policy':14}{'tokens seen':>12}{'kept':>7}{'bytes held':>13}{'of full':>9}"
          f"{'ms/token':>10}{'perplexity':>12}   kvasirctl stats")
    for row in rows:
        said = "agrees" if row["agrees"] else f"says {row['kvasirctl_held_bytes']}"
        print(f"{row['name']:14}{row['tokens_seen']:12}{row['tokens_kept']:7}{row['held_bytes']:13}"
              f"{100 * row['ratio']:8.1f}%{row['ms_per_token']:10.2f}{row['perplexity']:12.3f}   {said}")
    print("\nms/token: one decode step behind the text. Perplexity: of the same text, lower is better; this"
          "\nmodel was not trained for any of these policies.")
    print(f"wrote {out}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
