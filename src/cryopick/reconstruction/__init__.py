"""From particle images to a map: extraction, half sets, 2D classes, a first volume, refinement; arrays in, arrays out.

Conventions of the whole package: images hold protein bright on a background of mean 0 and standard deviation 1; the
particle's centre is pixel `box // 2` plus its shift; rotations carry the specimen's coordinates into the image's
(`cryopick.geometry.rotations`), angles are RELION's, volumes are `cryopick.types.Volume`, axes `[z, y, x]`.
"""
