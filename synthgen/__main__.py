"""`python -m synthgen` is the `synthgen` command."""

from synthgen.cli.app import main

if __name__ == "__main__":
    main()
