"""How good picks are: scores against labels, tables over pickers and sets, and their pages."""
