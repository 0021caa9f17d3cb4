"""Shipped test instruments: simulated clocks and network, clusters, checkers, strategies."""
