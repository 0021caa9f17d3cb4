"""A small supervised actor runtime on trio. Knows nothing of peers."""
