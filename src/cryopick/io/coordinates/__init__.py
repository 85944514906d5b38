"""Every coordinate format, each with its reader and writer."""
