"""Run the command line: ``python -m hrvol``."""

from hrvol.cli import main

if __name__ == "__main__":
    main()
