"""Runs that use the hidden folder as a conversion does, without converting anything."""

from mscvt.output.staging import Staging
from mscvt.output.tree import make_folders

FILES = ("a/x.pt", "a/y.pt", "b/x.pt")
TRACKER = "latest_checkpointed_iteration.txt"
NEW = {**dict.fromkeys(FILES, "new"), TRACKER: "1"}
OLD = {"iter_0000001/x.pt": "old", TRACKER: "7"}
REPLACEABLE = {*FILES, *OLD, "begun"}


def stage(target, *, identity="one"):
    return Staging(target, {"what": identity, "size": 3}, lambda folder: REPLACEABLE)


def track(folder):
    (folder / TRACKER).write_text("1")


def run(target, *, files=FILES, overwrite=False, resume=False, identity="one"):
    """What a conversion does with its hidden folder; returns whether the output is complete."""
    staging = stage(target, identity=identity)
    try:
        staging.open(overwrite=overwrite, resume=resume, files=files)
        if staging.is_committed:
            return True
        write(staging, staging.records)
        return staging.complete(FILES, track, overwrite)
    finally:
        staging.close()


def write(staging, files):
    """Write files that the run has locked."""
    files = tuple(files)
    for file in files:
        make_folders(staging.data, file).write_text("new")
    staging.sync_names(files)
    staging.mark_whole(files)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def make(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def hidden(target):
    return target.parent / f".{target.name}.mscvt"


def begin(target, *, files=FILES, identity="one", overwrite=False):
    """A run that is in the middle of its work."""
    staging = stage(target, identity=identity)
    staging.open(overwrite=overwrite, resume=False, files=files)
    (staging.data / "begun").write_text("")
    return staging
