"""Proteins and other specimens, and their projections."""
