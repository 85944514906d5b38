"""A picking run: its settings, its folder, its loop over micrographs, its tables and its report."""
