"""One short file per command; parse, call one workflow, print."""
