"""Neighbours are summed and mixed: NGCF, LightGCN, and what combines their layers."""
