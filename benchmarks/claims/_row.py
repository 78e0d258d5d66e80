"""One measured claim: what a paper says, what we measured, and beside what."""

import json
import statistics
from dataclasses import asdict, dataclass


@dataclass
class Row:
    """A row of ``docs/claims.md``; every number in it comes from the run that made it."""

    paper: str
    claim: str
    data: str
    ours: str
    baseline: str
    seeds: int
    holds: str
    note: str = ""

    def print(self) -> None:
        """Print the row as one line of JSON, which ``make claims`` collects."""
        print(json.dumps(asdict(self), ensure_ascii=False))


def spread(values: list[float], digits: int = 3) -> str:
    """``mean ± standard deviation`` over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"
