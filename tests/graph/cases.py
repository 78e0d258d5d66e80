from graph.cases_compactness import CASES as COMPACTNESS
from graph.cases_depth import CASES as DEPTH
from graph.cases_knowledge import CASES as KNOWLEDGE
from graph.cases_metapath import CASES as METAPATH
from graph.cases_propagation import CASES as PROPAGATION
from graph.cases_sdne import CASES as SDNE

CASES = {**PROPAGATION, **DEPTH, **KNOWLEDGE, **COMPACTNESS, **METAPATH, **SDNE}
