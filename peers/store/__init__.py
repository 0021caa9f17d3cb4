"""One group on disk: one SQLite file, its change log, and the merge."""
