"""Depth: the states after several layers, each trained to serve as an embedding."""
