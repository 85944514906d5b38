"""Arrays to arrays: no paths, no state."""
