import torch
from heads.cases_domain import CASES as DOMAIN
from heads.cases_hyperbolic import CASES as HYPERBOLIC
from heads.cases_nested_classifier import CASES as NESTED_CLASSIFIER
from heads.cases_next_sentence import CASES as NEXT_SENTENCE
from heads.cases_pair import CASES as PAIR
from heads.cases_projection import CASES as PROJECTION
from heads.cases_relation import CASES as RELATION

from embedkit.heads import MatryoshkaHead

CASES = {
    MatryoshkaHead: (lambda: MatryoshkaHead(6, dims=[2, 4, 8]), lambda b: (torch.randn(b, 6),)),
    **NESTED_CLASSIFIER,
    **NEXT_SENTENCE,
    **PAIR,
    **PROJECTION,
    **RELATION,
    **DOMAIN,
    **HYPERBOLIC,
}
