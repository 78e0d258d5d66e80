"""Finished weights in, new weights out."""

from embedkit.surgery.bidirectional import bidirectional
from embedkit.surgery.soup import GreedySoup, delta_soup, greedy_soup, uniform_soup

__all__ = [
    "GreedySoup",
    "bidirectional",
    "delta_soup",
    "greedy_soup",
    "uniform_soup",
]
