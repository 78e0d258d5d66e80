"""Whole sentences: a vector for each, a model that predicts the next one, and its decoder."""
