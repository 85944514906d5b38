"""The one home of file formats: each with read and write."""
