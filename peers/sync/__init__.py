"""Where the store and the network meet: what to exchange, with whom."""
