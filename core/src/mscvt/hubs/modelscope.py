"""ModelScope, through its own client, which an extra installs: `pip install "mscvt[modelscope]"`.

That library reads the usual variables: MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN, proxies and time-outs. ModelScope
names no commit, so what was listed is told from what comes later by its checksums.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from modelscope_hub import (
    AuthenticationError,
    FileInfo,
    HubApi,
    HubError,
    NotExistError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)

from mscvt.errors import MscvtError, shown
from mscvt.errors.nearest import did_you_mean
from mscvt.formats.sums import make_sum
from mscvt.hubs.hub import BrokenTransferError, HubFile, Listing, start_of

_MODEL = "model"
_MAIN = "master"
_CHUNK = 1 << 16
"""Bytes; of a chunk that a break ends, the beginning is lost."""


class ModelScopeHub:
    """The hub that MODELSCOPE_ENDPOINT names; by default modelscope.cn, or modelscope.ai where that alone has it."""

    def __init__(self) -> None:
        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)  # what it warns of becomes an error of ours
        self._resolved: HubApi | None = None

    def _api(self, repository: str) -> HubApi:
        """The client of the site that has the repository."""
        if self._resolved is None:
            self._resolved = HubApi(endpoint=HubApi().resolve_endpoint_for_read(repository))
        return self._resolved

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What a repository holds at a revision.

        Raises:
            MscvtError: Where it is not there, not for everybody, or the hub can't be reached.
        """
        try:
            files = self._api(repository).list_repo_files(repository, _MODEL, revision=revision or _MAIN)
        except (HubError, OSError, ValueError) as error:
            raise self._error(error, repository, revision) from None
        return Listing(revision or _MAIN, tuple(_hub_file(file) for file in files if not file.is_dir))

    @contextmanager
    def open_at(
        self, repository: str, revision: str, path: str, start: int, end: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Ask for a range of a file's bytes.

        Raises:
            MscvtError: Where the hub refuses it for good.
            BrokenTransferError: Where the connection breaks.
        """
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        try:
            response = self._api(repository).legacy.download_stream(repository, _MODEL, path, revision, headers)
        except (ServerError, RateLimitError, OSError) as error:
            raise BrokenTransferError(shown(error)) from None
        except HubError as error:
            raise self._error(error, repository, revision, path) from None
        with closing(response):
            yield start_of(response.status_code, response.headers), _chunks(response)

    def _error(self, error: Exception, repository: str, revision: str | None, path: str = "") -> MscvtError:
        """What an error of the library means."""
        where = f"{repository}{path and f', {path}'}"
        if isinstance(error, NotExistError):
            if question := self._nearest_revision(repository, revision):
                return MscvtError(f"{where}: has no revision {shown(revision)}", hint=question)
            return MscvtError(
                f"{where}: ModelScope has no such model, or not for everybody",
                hint="A private one needs MODELSCOPE_API_TOKEN. Names differ from those of Hugging Face's hub: look "
                "for it on its pages.",
            )
        if isinstance(error, (AuthenticationError, PermissionDeniedError)):
            return MscvtError(
                f"{where}: ModelScope refuses it: {shown(error)}",
                hint="Is MODELSCOPE_API_TOKEN valid, and may its owner read this model?",
            )
        return MscvtError(
            f"{where}: ModelScope can't be reached: {shown(error)}",
            hint="Is there a proxy to be set (HTTPS_PROXY)? --source huggingface takes another hub.",
        )

    def _nearest_revision(self, repository: str, revision: str | None) -> str | None:
        """Which revisions there are; None where the model itself is not there, or none was asked for."""
        if revision is None:
            return None
        with suppress(HubError, OSError, ValueError):
            found = self._api(repository).list_repo_revisions(repository, _MODEL)
            names = [str(each.get("Revision") or each.get("name")) for each in found]
            return did_you_mean(revision, names) or f"It has {', '.join(sorted(names)[:10])}."
        return None


def _hub_file(file: FileInfo) -> HubFile:
    return HubFile(file.path, file.size, make_sum("sha256", file.sha256))


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK)
    except OSError as error:  # all errors of requests are
        raise BrokenTransferError(shown(error)) from None
