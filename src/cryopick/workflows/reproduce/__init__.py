"""The tables and figures of the five papers by one command, on the papers' data or on a simulated stand-in."""

from cryopick.workflows.reproduce.papers import PAPERS, reproduce

__all__ = ["PAPERS", "reproduce"]
