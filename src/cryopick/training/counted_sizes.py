"""Which particle sizes count when a network learns and is judged at one working scale."""

PICKED_RATIO = (0.6, 1.65)
"""Particles whose diameter over the nominal one lies in this range are to be picked ..."""
UNDECIDED_RATIO = (0.45, 2.2)
"""... those outside this one are background; what lies between counts neither way."""
