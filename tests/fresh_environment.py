"""Environments that see what packages depend on (linked, not installed again) and nothing else of this repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command, cwd=None):
    """What a program prints; it knows nothing of the environment that the tests run in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_environment(folder):
    """Make an environment; returns its interpreter and the folder of its packages."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(installed).iterdir():
            if not path.name.startswith(("mscvt", "__editable__", "pip")):
                (packages / path.name).symlink_to(path)
    return folder / "bin/python", packages


def passed(python, *folders):
    """The closing line of the tests in folders."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    return run(*command, *folders, cwd=folders[0]).splitlines()[-1]
