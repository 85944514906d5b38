"""Simulations as the authors of particular pickers describe them."""
