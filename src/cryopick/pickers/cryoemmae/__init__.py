"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""
