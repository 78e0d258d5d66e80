"""The learnable curvature in the contract."""

from embedkit.geometry import Curvature

NO_INPUT = {"empty_batch": "it takes no batch", "moves": "it takes no input"}
CASES = {Curvature: (Curvature, lambda b: (), NO_INPUT)}
