"""File systems that are small enough to fill up."""

import os
import subprocess
import tempfile

MOUNT = ["mount", "-t", "tmpfs", "-o"]


def small_disks():
    """A file system of its own can be made by root only; elsewhere the size limit stands alone."""
    folder = tempfile.mkdtemp()
    try:
        made = subprocess.run([*MOUNT, "size=1m", "tmpfs", folder], check=False, capture_output=True)
        if made.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return ["size=1m"] if made.returncode == 0 else []
    except FileNotFoundError:
        return []
    finally:
        os.rmdir(folder)
