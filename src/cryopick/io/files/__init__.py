"""Files as such: atomic writing, text, JSON objects, and errors of the system explained."""
