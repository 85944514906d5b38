"""`cryotransformer`: particles as a set, predicted by a detection transformer (Dhakal et al., 2024)."""
