"""Simulated micrographs, in the order the electrons meet things."""
