"""Pickers side by side behind one small protocol, each readable alone."""
