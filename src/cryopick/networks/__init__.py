"""Plain nn.Modules built from plain arguments."""
