"""`python -m lrtool` is `lrtool`."""

from lrtool.cli import main

if __name__ == "__main__":
    main()
