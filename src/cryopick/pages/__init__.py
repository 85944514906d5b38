"""Pages to read in a browser or a notebook: what they show as plain values (`parts`), and templates that draw it.

Each page is one file that needs no other and no network. All texts are escaped by the templates.
"""
