"""The one home of coordinates: units, boxes, flips, tiles, pairing, selection."""
