"""`python -m peers`: the command line without an installed script."""

from peers.cli.main import main

if __name__ == "__main__":
    main()
