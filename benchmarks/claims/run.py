"""Run every claim and write ``docs/claims.md`` from the rows they print.

python benchmarks/claims/run.py [NAME ...]
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROWS = HERE.parent / "results" / "claims.json"
PAGE = HERE.parents[1] / "docs" / "claims.md"
DATA = HERE.parents[2] / "shared" / "data"
HEAD = """# Claims, measured again

What each paper claims, re-measured by `make claims` at a size that a CPU can do, beside a baseline
with the same budget. "Holds" is decided by a rule in the script, from the numbers. Every number
below was printed by the script of that row in `benchmarks/claims/`.

"""


def show(name, row):
    """One claim as a section."""
    note = f"\n{row['note']}\n" if row["note"] else ""
    return (
        f"## {row['paper']}\n\n**Claim.** {row['claim']}\n\n"
        f"| data | ours | baseline | seeds | holds |\n| --- | --- | --- | --- | --- |\n"
        f"| {row['data']} | {row['ours']} | {row['baseline']} | {row['seeds']} | {row['holds']} |\n"
        f"{note}\nScript: `benchmarks/claims/{name}.py`.\n"
    )


def main(names):
    """Run the scripts that are named, or all, and rewrite the page from all rows known."""
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    scripts = {p.stem: p for p in sorted(HERE.glob("[!_]*.py")) if p.stem != "run"}
    for name in names or scripts:
        print(f"claim {name} ...", file=sys.stderr)
        done = subprocess.run([sys.executable, scripts[name]], stdout=subprocess.PIPE, text=True)
        output = done.stdout
        if done.returncode and not DATA.exists():
            print(f"claim {name}: left out, its data are not in {DATA.name}", file=sys.stderr)
            continue
        done.check_returncode()
        rows[name] = json.loads(output.splitlines()[-1])
        print(output, end="")
        ROWS.parent.mkdir(exist_ok=True)
        ROWS.write_text(json.dumps(rows, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    PAGE.write_text(HEAD + "\n".join(show(n, rows[n]) for n in scripts if n in rows))


if __name__ == "__main__":
    main(sys.argv[1:])
