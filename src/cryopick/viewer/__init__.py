"""The page of `cryopick view`: a local server and a front end without build step.

Holds no algorithm and imports no torch.
"""
