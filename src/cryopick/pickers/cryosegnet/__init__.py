"""`cryosegnet`: attention-gated U-Net and Segment Anything (Gyawali et al., 2024)."""
