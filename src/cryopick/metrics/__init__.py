"""The one home of scores."""
