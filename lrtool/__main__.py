"""`python -m lrtool` is `lrtool`."""

from lrtool.cli.app import main

if __name__ == "__main__":
    main()
