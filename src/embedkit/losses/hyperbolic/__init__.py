"""Losses of points in hyperbolic space: who is near whom, and who lies under whom."""
