"""A run that follows a microscope: micrographs come while it lasts, and at its end it is what a batch run makes."""
