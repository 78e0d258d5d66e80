"""For every public Module: how to build it, what to feed it, and which promises it cannot keep.

``Module: (build, inputs)`` or ``Module: (build, inputs, {check: reason})``; ``inputs(b)`` gives the
tuple of forward's arguments for batch size b. Each package has its own part, joined at the end.
"""

from batch.cases import CASES as BATCH
from geometry.cases_curvature import CASES as CURVATURE
from geometry.cases_isotropy import CASES as GEOMETRY
from graph.cases import CASES as GRAPH
from heads.cases import CASES as HEADS
from losses.cases import CASES as LOSSES
from mining.cases import CASES as MINING
from ops.cases import CASES as OPS
from pooling.cases import CASES as POOLING
from tables.cases import CASES as TABLES

CASES = {
    **TABLES,
    **POOLING,
    **HEADS,
    **LOSSES,
    **BATCH,
    **MINING,
    **GEOMETRY,
    **CURVATURE,
    **OPS,
    **GRAPH,
}
