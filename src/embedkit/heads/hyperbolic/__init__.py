"""Layers between points of the Poincaré ball, and from points to scores."""
