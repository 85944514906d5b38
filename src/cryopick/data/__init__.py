"""Labelled data: sets of micrographs with labels, how they are read, split and summed up."""
