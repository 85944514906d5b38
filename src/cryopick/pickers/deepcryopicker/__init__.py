"""`deepcryopicker`, and with it `autocryopicker` and `supercryopicker` (Al-Azzawi et al., 2019 and 2020)."""
