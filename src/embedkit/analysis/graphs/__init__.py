"""Measurements of vectors on graphs."""
