"""`template`: correlation with projections or class averages."""
