"""`python -m mscvt`."""

from mscvt.cli.main import run

if __name__ == "__main__":
    run()
