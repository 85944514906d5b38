"""The published pickers' denoisers, step by step as their programs run them, and one denoiser without their faults.

`published` CryoTransformer and CryoSegNet, `cryoemmae`, `autocryopicker`: what weights trained by
those programs expect.
`corrected`: the same ideas with nothing shifted, at a working resolution, for everything trained here.
"""
