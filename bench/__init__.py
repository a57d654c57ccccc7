"""Portway beside its peers: the same load on each in turn, CPU per operation, ratios as a table."""
