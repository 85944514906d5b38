"""From picks to a map and an honest number: see `run.validate3d`."""
