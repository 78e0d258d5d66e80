"""What a reconstruction was found to be: numbers for each distance, and a table of them."""

from typing import NamedTuple

from torch import Tensor


class HopReport(NamedTuple):
    """How well nodes at one distance were found.

    Attributes:
        hop: the distance k.
        map: mean of ``ap`` over the nodes that have a relevant candidate; NaN if none has.
        chance: what a random order has in expectation, for the same nodes.
        normalized: (map - chance) / (1 - chance): 0 at chance level, 1 at best.
        standard_error: of ``map``, from having asked a sample of nodes; 0 where all were asked.
        nodes: how many nodes the means are over.
        precision: k -> mean precision@k, and what a random order has.
        pair_precision: the same of the best k pairs of all queries together.
        oracle: mAP of the distances themselves, the best that can be: 1 unless ``candidates`` are
            "exact".
        auc: mean chance that a relevant candidate is before another one; 0.5 is chance.
        reach: mean share of the other nodes that are at most k hops away. Where it is near 1 the
            balls of k hops cover the graph, and being within k hops says nothing.
        ap: (q,) average precision of each query; NaN without a relevant candidate.
    """

    hop: int
    map: float
    chance: float
    normalized: float
    standard_error: float
    nodes: int
    precision: dict[int, tuple[float, float]]
    pair_precision: dict[int, tuple[float, float]]
    oracle: float
    auc: float
    reach: float
    ap: Tensor


class ReconstructionReport(NamedTuple):
    """One :class:`HopReport` per distance; ``print`` shows a table.

    Attributes:
        score: how pairs were scored.
        candidates: what competed, see :func:`reconstruction_metrics`.
        query: (q,) the nodes that were asked.
        hops: the reports, in the order asked for.
    """

    score: str
    candidates: str
    query: Tensor
    hops: tuple[HopReport, ...]

    def __str__(self) -> str:
        """A table with chance and the best there can be beside every value."""
        head = f"score {self.score}, candidates {self.candidates}, {len(self.query)} queries"
        lines = [
            head,
            " hop    mAP   chance  oracle  normalized  std. error     AUC   reach  nodes",
        ]
        lines += [
            f"{h.hop:4d}  {h.map:.4f}  {h.chance:.4f}  {h.oracle:.4f}  {h.normalized:10.4f}  "
            f"{h.standard_error:10.4f}  {h.auc:.4f}  {h.reach:.4f}  {h.nodes:5d}"
            for h in self.hops
        ]
        return "\n".join(lines)
