"""What is printed of unfinished work."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mscvt.cli.screen import say
from mscvt.cli.tables import Values
from mscvt.dialects.options import Options
from mscvt.errors import printable
from mscvt.model.options import rows, rows_in
from mscvt.model.values import shown
from mscvt.output.planned import missing_parts
from mscvt.views.sizes import counted

if TYPE_CHECKING:
    from mscvt.jobs.unfinished import Status
    from mscvt.output.download import UnfinishedDownload
    from mscvt.output.unfinished import UnfinishedConversion

_SHOWN = 5


def status_object(status: Status) -> dict[str, Any]:
    """What is unfinished, as `--json` shows it."""
    conversion, download = status.conversion, status.download
    return {
        "target": str(status.target),
        "conversion": _conversion_object(conversion) if conversion else None,
        "download": _download_object(download) if download else None,
    }


def _conversion_object(work: UnfinishedConversion) -> dict[str, Any]:
    return {
        "direction": work.identity.get("direction"),
        "load_dir": _source(work),
        "model_type": work.identity.get("model type"),
        "options": work.identity.get("options", {}),
        "staging": str(work.root),
        "bytes": sum(each.file.nbytes for each in work.files),
        "on_disk": work.nbytes,
        "is_running": work.is_running,
        "files": [
            {
                "path": each.file.path,
                "bytes": each.file.nbytes,
                "tensors": each.file.tensors,
                "written": each.tensors,
                "is_whole": each.is_whole,
            }
            for each in work.files
        ],
        "only": _parts(work),
    }


def _download_object(work: UnfinishedDownload) -> dict[str, Any]:
    return {
        "source": work.origin.source,
        "repository": work.origin.repository,
        "revision": work.origin.revision,
        "bytes": sum(file.nbytes for file in work.origin.files.values()),
        "on_disk": work.arrived,
        "is_running": work.is_running,
        "files": [
            {"path": name, "bytes": file.nbytes, "is_whole": name not in work.missing}
            for name, file in work.origin.files.items()
        ],
        "missing": list(work.missing),
    }


def _source(work: UnfinishedConversion) -> str | None:
    source = work.identity.get("source")
    folder = source.get("folder") if isinstance(source, dict) else None
    return folder if isinstance(folder, str) else None


def _parts(work: UnfinishedConversion) -> list[str]:
    return missing_parts((each.file for each in work.files), (each.file.path for each in work.files if each.is_whole))


def print_status(status: Status) -> None:
    """Say how far unfinished work is, what it lacks, and how to go on with it or give it up."""
    where = shlex.quote(str(status.target))
    if status.conversion:
        _print_conversion(status.conversion, where)
    if status.download:
        _print_download(status.download, where)
    if not status.conversion and not status.download:
        said = f"; it holds {status.finished.repository} at {status.finished.revision}" if status.finished else ""
        say(f"{where}: nothing is unfinished{printable(said)}")


def _print_conversion(work: UnfinishedConversion, where: str) -> None:
    identity = work.identity
    if work.is_committed:
        say(f"{where}: is complete; a run ended before it had removed {shlex.quote(str(work.root))}")
        _print_ways(
            f"the command that made it does that, and so does mscvt discard {where}", is_running=work.is_running
        )
        return
    of = f" of {shlex.quote(printable(_source(work)))}" if _source(work) else ""
    say(f"{where}: unfinished {printable(identity.get('direction', 'conversion'))}{of}")
    if words := list(_options(identity)):
        say(f"options: {printable(' '.join(words))}")
    whole = sum(each.is_whole for each in work.files)
    written, tensors = (
        sum(numbers) for numbers in zip(*((f.tensors, f.file.tensors) for f in work.files), strict=True)
    )
    say(
        f"{whole:,} of {counted(len(work.files), 'file')} are whole, {written:,} of {counted(tensors, 'tensor')} are "
        f"written, of {sum(each.file.nbytes for each in work.files):,} bytes"
    )
    if whole and (parts := _parts(work)):
        more = f" and {len(parts) - _SHOWN} others" if len(parts) > _SHOWN else ""
        say(f"missing: {', '.join(f'--only {part}' for part in parts[:_SHOWN])}{more}")
    say(f"it takes {work.nbytes:,} bytes in {shlex.quote(str(work.root))}")
    _print_ways(f"the command that began it goes on, mscvt discard {where} gives it up", is_running=work.is_running)


def _options(identity: Mapping[str, Any]) -> Iterator[str]:
    """The options under which it was begun, those that hold anyway left out."""
    options = identity.get("options")
    options = options if isinstance(options, dict) else {}
    dialect = str(options.get("dialect"))
    for found, table in ((options, rows_in(Options, dialect)), (identity, rows(Values))):
        for name, row in table.items():
            usual = options.get(row.same_as) if row.same_as else row.defaults.get(dialect, row.default)
            value = found.get(name)
            if value not in (None, False, [], usual):
                yield row.flag if value is True else f"{row.flag} {_said(value)}"


def _said(value: Any) -> str:
    return shlex.quote(shown(tuple(value) if isinstance(value, list) else value))


def _print_download(work: UnfinishedDownload, where: str) -> None:
    origin = work.origin
    total = sum(file.nbytes for file in origin.files.values())
    say(f"{where}: unfinished download of {origin.repository} at {origin.revision} from {origin.source}")
    say(
        f"{len(origin.files) - len(work.missing):,} of {counted(len(origin.files), 'file')} are whole, "
        f"{work.arrived:,} of {total:,} bytes have arrived"
    )
    more = f" and {len(work.missing) - _SHOWN} others" if len(work.missing) > _SHOWN else ""
    say(f"missing: {', '.join(work.missing[:_SHOWN])}{more}")
    command = shlex.join(origin.command(work.folder))
    _print_ways(f"{command} goes on, mscvt discard {where} gives it up", is_running=work.is_running)


def _print_ways(ways: str, *, is_running: bool) -> None:
    say("a run is at work on it" if is_running else ways)


def print_discarded(status: Status) -> None:
    """Say what was removed."""
    where = shlex.quote(str(status.target))
    if status.conversion:
        say(f"{where}: removed an unfinished conversion, {status.conversion.nbytes:,} bytes")
    if status.download:
        origin = status.download.origin
        kept = f"; what was there before stays: {', '.join(origin.kept[:_SHOWN])}" if origin.kept else ""
        say(f"{where}: removed an unfinished download, {status.download.arrived:,} bytes{kept}")
