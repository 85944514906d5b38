"""The scale-normalised heat-map network that `general` picks with and others measure sizes with."""
