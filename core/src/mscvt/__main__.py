"""`python -m mscvt`."""

from mscvt.cli.main import main

if __name__ == "__main__":
    main()
