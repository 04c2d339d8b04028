"""Runs that use the hidden folder as a conversion does, without converting anything."""

from mscvt.output.staging import REPLACEABLE, Staging

FILES = ("a/x.pt", "a/y.pt", "b/x.pt")
NEW = {**dict.fromkeys(FILES, "new"), "latest_checkpointed_iteration.txt": "1"}
OLD = {"iter_0000001/x.pt": "old", "latest_checkpointed_iteration.txt": "7"}
TRACKER = "latest_checkpointed_iteration.txt"


def run(target, *, files=FILES, overwrite=False, resume=False, shared=False, identity="one"):
    """What a conversion does with its hidden folder; returns whether the output is complete."""
    staging = Staging(target, {"what": identity}, (*REPLACEABLE, "a", "b"))
    try:
        staging.open(overwrite=overwrite, resume=resume, shared=shared, files=files)
        if staging.is_committed:
            return True
        for file in files:
            path = staging.data / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("new")
        staging.sync_names(files)
        staging.mark_whole(files)
        return staging.complete(FILES, lambda folder: (folder / TRACKER).write_text("1"), overwrite)
    finally:
        staging.close()


def tree(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def make(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def hidden(target):
    return target.parent / f".{target.name}.mscvt"


def begin(target, *, files=FILES, shared=False, identity="one", overwrite=False):
    """A run that is in the middle of its work."""
    staging = Staging(target, {"what": identity, "size": 3}, (*REPLACEABLE, "a", "b"))
    staging.open(overwrite=overwrite, resume=False, shared=shared, files=files)
    (staging.data / "begun").write_text("")
    return staging
