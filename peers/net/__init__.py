"""Transports and connections between devices."""
