"""Every image format: micrographs in, `Micrograph` out."""
