"""Write ``wordnet_nouns.tsv.gz``: every noun synset of WordNet 3.0 with its text and its parents.

Run ``python examples/data/make_wordnet.py``. It reads ``wordnet/wordnet.tsv.gz`` in the folder that
the environment variable ``EMBEDKIT_DATA`` names (default ``../shared/data``). The same input gives
the same bytes under the same zlib.
"""

import csv
import gzip
import os
import shutil
from pathlib import Path

SOURCE = Path(os.environ.get("EMBEDKIT_DATA", "../shared/data")) / "wordnet"
HERE = Path(__file__).parent
PARENT_SYMBOLS = {"@", "@i"}  # hypernym ("is a kind of"), instance hypernym ("is an instance of")


def read_nouns(path: Path) -> list[dict[str, str]]:
    """All noun synsets in WordNet's order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in rows if row["synset"].startswith("n")]


def parents(row: dict[str, str], row_of: dict[str, int]) -> list[int]:
    """Row numbers of a synset's parents, in WordNet's order, each once."""
    pointers = (relation.rsplit(":", 1) for relation in row["relations"].split())
    return list(dict.fromkeys(row_of[to] for symbol, to in pointers if symbol in PARENT_SYMBOLS))


def main() -> None:
    source = SOURCE / "wordnet.tsv.gz"
    if not source.exists():
        raise SystemExit(
            f"make_wordnet: found no {source}. Set EMBEDKIT_DATA to the folder that holds "
            "wordnet/wordnet.tsv.gz. The table itself is in the repository: to use it, this "
            "script need not run."
        )
    nouns = read_nouns(source)
    row_of = {row["synset"]: number for number, row in enumerate(nouns)}
    lines = ["lemmas\tdefinition\tparents"]
    for row in nouns:
        numbers = " ".join(map(str, parents(row, row_of)))
        lines.append(f"{row['lemmas']}\t{row['definition']}\t{numbers}")
    target = HERE / "wordnet_nouns.tsv.gz"
    text = "\n".join(lines) + "\n"
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    shutil.copyfile(SOURCE / "LICENSE", HERE / "LICENSE.wordnet")
    print(f"{target.name}: {len(nouns):,} noun synsets, {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
