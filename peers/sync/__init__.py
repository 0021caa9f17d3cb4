"""Where the store and the network meet: which groups are shared, what to exchange, with whom."""
