"""Density maps, atomic structures and poses."""
