"""Settings that all tests share."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

# The same examples on every machine, and no clock: other work on a machine is no failure of a test.
settings.register_profile("mscvt", deadline=None, derandomize=True)
settings.load_profile("mscvt")

# A suite that runs in the background has Ctrl-C ignored, and so would the programs have that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; torch's threads would wait for each other

# Conversions wait for the disk, thousands of times in these tests: in memory they take half the time.
MEMORY, ENOUGH = Path("/dev/shm"), 2 << 30
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None
