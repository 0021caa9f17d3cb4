"""What things are: identifiers, clocks, vectors, schemas, entries, merge and membership.

Pure: no trio, no apsw, no clock, no randomness.
"""
