"""Pairs: a row finds its partners among all others."""
