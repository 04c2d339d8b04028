"""Settings that all tests share."""

from hypothesis import settings

# The same examples on every machine, and no clock: other work on a machine is no failure of a test.
settings.register_profile("mscvt", deadline=None, derandomize=True)
settings.load_profile("mscvt")
