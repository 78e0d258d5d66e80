"""Losses that make features of several domains alike: adversarial, or by a distance."""
