"""One training path that all learned pickers share."""
