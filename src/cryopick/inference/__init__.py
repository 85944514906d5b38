"""Running networks over whole micrographs: devices, tiles, several looks."""
