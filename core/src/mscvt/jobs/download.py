"""Fetching what a conversion needs of a model on a hub, and nothing else."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from mscvt.errors import MscvtError, shown
from mscvt.formats.huggingface.weights import weight_names
from mscvt.hubs.hub import Hub
from mscvt.hubs.transfer import PART, fetch
from mscvt.jobs.disk_errors import disk_error
from mscvt.jobs.download_plan import plan_download
from mscvt.jobs.prepared import Interrupted
from mscvt.jobs.stopper import Stopper
from mscvt.output.download import DownloadFolder, Origin
from mscvt.records import dataclass

SOURCES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "huggingface": ("mscvt.hubs.huggingface", "HuggingFaceHub"),
        "modelscope": ("mscvt.hubs.modelscope", "ModelScopeHub"),
    }
)
"""Hub -> the module and the class that know it. A module imports its library, and is imported only to be asked."""
CONNECTIONS = 8
"""Files that are fetched at the same time."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PAGE = re.compile(r"(?:https?://)?[^/]+\.[^/]+/(?:models/)?([^/?#]+/[^/?#]+)")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Download:
    """What is in the folder now."""

    target: Path
    origin: Origin
    fetched: int
    """Bytes that came over the network."""
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.nbytes for file in self.origin.files.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known, one line each."""
        unknown = sorted(name for name, file in self.origin.files.items() if file.sum is None)
        return (f"the hub states no checksum of {', '.join(unknown[:_SHOWN])}",) if unknown else ()


def open_hub(source: str) -> Hub:
    """Import what knows a hub.

    Raises:
        MscvtError: Where its library is not installed.
    """
    module, name = SOURCES[source]
    try:
        hub: Hub = getattr(import_module(module), name)()
    except ModuleNotFoundError as error:
        raise MscvtError(
            f"--source {source} needs a package that is not installed: {error.name}",
            hint=f'pip install "mscvt[{source}]"',
        ) from None
    return hub


def check_repository(repository: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        MscvtError: With how it is written.
    """
    if _REPOSITORY.fullmatch(repository):
        return
    page = _PAGE.match(repository)
    hint = f"Write {page[1]}." if page else "Write owner/name, as the page of the model has it at its top."
    raise MscvtError(f"{shown(repository)}: is no name of a model on a hub", hint=hint)


def download(
    repository: str,
    target: Path,
    *,
    source: str = "huggingface",
    revision: str | None = None,
    connections: int = CONNECTIONS,
    started: Callable[[str, int], None] = lambda what, nbytes: None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Download:
    """Fetch the weights in one format, configuration, tokenizer and code of a model, or what is missing of them.

    Args:
        repository: Its name on the hub, `owner/name`.
        target: The folder to fill. Files in it that are the model's are kept; others that would be in the way are an
            error.
        source: One of `SOURCES`.
        revision: A branch, tag or commit; by default the main branch. A download that goes on keeps to the commit that
            this was when it began.
        connections: How many files are fetched at the same time.
        started: Called when a phase begins: what it is, and how many bytes it will move.
        progress: Called with the bytes that were moved, from any thread.

    Raises:
        MscvtError: Where the model, the hub, the folder or the disk refuses it, or a file is not what the hub states.
        Interrupted: On Ctrl-C.
    """
    began = time.monotonic()
    check_repository(repository)
    folder, fetched, hub = DownloadFolder(target), 0, None
    folder.open()
    try:
        origin = folder.origin
        if origin is None:
            hub = open_hub(source)
            origin = plan_download(hub, folder, Origin(source, repository, revision, "", {}), started, progress)
            folder.begin(origin)
        _check_same(origin, Origin(source, repository, revision, "", {}), target)
        if missing := folder.missing():
            total, lacking = sum(origin.files[name].nbytes for name in missing), _check_space(folder, origin, missing)
            fetched = total if hub else lacking  # a run that asks for the list has the index from there already
            started("downloading", total)
            _fetch_all(hub or open_hub(source), folder, origin, _in_order(missing), connections, progress)
            folder.finish()
    except OSError as error:
        raise disk_error(error, target, is_begun=folder.origin is not None) from error
    finally:
        folder.close()
    return Download(target, origin, fetched, time.monotonic() - began)


def _check_same(there: Origin, asked: Origin, folder: Path) -> None:
    """Refuse to fill a folder with two things.

    Raises:
        MscvtError: Where something else was begun in it.
    """
    is_same = (there.source, there.repository) == (asked.source, asked.repository)
    if is_same and asked.asked in (there.asked, there.revision):
        return
    at = f" at {there.asked}" if there.asked else ""
    raise MscvtError(
        f"{folder}: is a download of {there.repository}{at} from {there.source}",
        hint="Give another folder with --to, or ask for the same.",
    )


def _in_order(names: Collection[str]) -> list[str]:
    """Small files first, so that what is wrong with a model is seen before its weights arrive."""
    weights = set(weight_names(names))
    return sorted(names, key=lambda name: (name in weights, name))


def _check_space(folder: DownloadFolder, origin: Origin, missing: list[str]) -> int:
    """Refuse to begin what can't end; returns the bytes that are still to be fetched.

    Raises:
        MscvtError: Where the disk has less space.
    """
    needed = sum(origin.files[name].nbytes - _arrived(folder.staging / name) for name in missing)
    free = shutil.disk_usage(folder.staging).free
    if needed > free:
        raise MscvtError(
            f"{folder.folder}: the download needs {needed:,} bytes more, the disk has {free:,} bytes free",
            hint="Free some space, or give a folder on another disk with --to.",
        )
    return needed


def _arrived(path: Path) -> int:
    """Bytes of a file that an earlier run has fetched, whole or not."""
    return sum(each.stat().st_size for each in (path, path.with_name(path.name + PART)) if each.is_file())


def _fetch_all(
    hub: Hub,
    folder: DownloadFolder,
    origin: Origin,
    names: list[str],
    connections: int,
    progress: Callable[[int], None],
) -> None:
    """Fetch files, several at the same time.

    Raises:
        MscvtError: The first that happened; what has arrived is kept.
        Interrupted: On Ctrl-C.
    """
    stopper = Stopper(progress)

    def run(name: str) -> None:
        stopper.moved(0)
        fetch(hub, origin.repository, origin.revision, origin.files[name], folder.staging / name, stopper.moved)
        folder.take(name)

    pool = ThreadPoolExecutor(connections, thread_name_prefix="mscvt-download")
    futures = [pool.submit(run, name) for name in names]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        stopper.stop()
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        stopper.stop()
        pool.shutdown(wait=False, cancel_futures=True)  # a connection that says nothing would hold this up
        raise Interrupted(_left_behind(folder, origin)) from None
    for error in (future.exception() for future in done):
        if error is not None:
            raise error


def _left_behind(folder: DownloadFolder, origin: Origin) -> str:
    """What Ctrl-C leaves: how much, where, and what to do about it."""
    whole = sum(file.nbytes for file in origin.files.values())
    lacking = sum(origin.files[name].nbytes - _arrived(folder.staging / name) for name in folder.missing())
    return f"{whole - lacking:,} of {whole:,} bytes are kept in {folder.folder}; the same command goes on from there"
