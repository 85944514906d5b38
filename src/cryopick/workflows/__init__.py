"""One plain function per verb, for the command line and notebooks alike."""
