"""Contrast of graph views: what an augmentation can do, and which views to compare."""
