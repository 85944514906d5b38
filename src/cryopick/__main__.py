"""`python -m cryopick`: the command line, for those who choose the Python that runs it."""

from cryopick.cli.main import main

if __name__ == "__main__":
    main()
