"""Which micrographs a user means."""
