"""Peers: an embedded, local-first SQL database whose groups sync directly between devices."""
