"""The peers command: one file per command group."""
