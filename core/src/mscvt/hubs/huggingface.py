"""Hugging Face's hub and its mirrors, through huggingface_hub.

That library reads the usual variables: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies and time-outs. It tells what is
there, who asks, and what an answer means. Bytes are streamed by its session, but written by `hubs.transfer`: since
2.0 its own downloads begin anew in each process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff, logging

from mscvt.errors import MscvtError, shown
from mscvt.errors.nearest import did_you_mean
from mscvt.formats.sums import make_sum
from mscvt.hubs import transfer
from mscvt.hubs.hub import BrokenTransferError, HubFile, Listing, start_of

_TRANSPORT: tuple[type[Exception], ...] = (HfHubHTTPError.__mro__[1], OSError)
"""What a connection that breaks raises: the base of all errors of the HTTP library that huggingface_hub uses, which was
httpx up to its version 1 and is httpx2 since."""
_ANSWERS: tuple[type[Exception], ...] = (*_TRANSPORT, ValueError)
"""The same, and what is raised by answers that make no sense."""
_TIMEOUT = 30
"""Seconds without a byte, after which a connection counts as broken; HF_HUB_DOWNLOAD_TIMEOUT may be more."""
_RETRIES = 2
"""Of an answer that is another one a little later; then the transfer counts as broken."""
_SUGGESTED = 20
"""Repositories that are looked at for one with nearly the same name."""
_PASSING = (408, 429, 500, 502, 503, 504)
"""Answers that are others a little later."""


class HuggingFaceHub:
    """The hub that HF_ENDPOINT names, by default huggingface.co."""

    def __init__(self) -> None:
        logging.set_verbosity_error()  # what it warns of is retried, or becomes an error of ours
        self._api = HfApi(library_name="mscvt")
        self._endpoint = self._api.endpoint

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What a repository holds at a revision.

        Raises:
            MscvtError: Where it is not there, not for everybody, or the hub can't be reached.
        """
        waits = iter(transfer.WAITS)
        while True:
            try:
                info = self._api.model_info(repository, revision=revision, files_metadata=True, timeout=_timeout())
                return Listing(info.sha or revision or "main", tuple(map(_hub_file, info.siblings or ())))
            except _ANSWERS as error:
                wait = next(waits, None) if _status(error) in _PASSING else None
                if wait is None:
                    raise self._error(error, repository, revision) from None
                time.sleep(wait)

    @contextmanager
    def open_at(
        self, repository: str, revision: str, path: str, start: int, end: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Ask for a range of a file's bytes.

        Raises:
            MscvtError: Where the hub refuses it for good.
            BrokenTransferError: Where the connection breaks.
        """
        url = hf_hub_url(repository, path, revision=revision, endpoint=self._endpoint)
        headers = build_hf_headers(library_name="mscvt")
        headers |= {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        opened = False
        try:
            with http_stream_backoff(  # it waits as long as an answer 429 asks for
                "GET", url, headers=headers, timeout=_timeout(), retry_on_exceptions=(), max_retries=_RETRIES
            ) as response:
                hf_raise_for_status(response)
                opened = True
                yield start_of(response.status_code, response.headers), _chunks(response)
        except _TRANSPORT as error:
            if opened and not isinstance(error, _TRANSPORT[0]):
                raise  # of our own disk
            if isinstance(error, OfflineModeIsEnabled) or _status(error) not in (None, *_PASSING):
                raise self._error(error, repository, revision, path) from None
            raise BrokenTransferError(_reason(error)) from None

    def _error(self, error: Exception, repository: str, revision: str | None, path: str = "") -> MscvtError:
        """What an error of the library means."""
        where, endpoint = f"{repository}{path and f', {path}'}", self._endpoint
        if isinstance(error, OfflineModeIsEnabled):
            return MscvtError(
                f"{where}: HF_HUB_OFFLINE is set, so nothing can be fetched", hint=self._cached(repository, revision)
            )
        if isinstance(error, GatedRepoError):
            return MscvtError(
                f"{where}: is gated, {endpoint} gives it only to those who have agreed to its terms",
                hint=f"Agree on {endpoint}/{repository}, and give your token as HF_TOKEN or by `hf auth login`.",
            )
        if isinstance(error, RevisionNotFoundError):
            return MscvtError(
                f"{where}: has no revision {shown(revision)}", hint=self._nearest_revision(repository, revision)
            )
        status = _status(error)
        if isinstance(error, RepositoryNotFoundError) or status == 401:  # which hubs answer for both
            question = self._nearest_repository(repository)
            private = "A private one needs a valid HF_TOKEN, or `hf auth login`."
            return MscvtError(
                f"{where}: {endpoint} has no such model, or not for everybody",
                hint=f"{question} {private}" if question else private,
            )
        if status == 403:
            return MscvtError(
                f"{where}: {endpoint} refuses it: {_reason(error)}",
                hint="Is HF_TOKEN valid, and may its owner read this model?",
            )
        if status is not None:
            return MscvtError(
                f"{where}: {endpoint} answers {status}: {_reason(error)}",
                hint="Try again later, or take a mirror with HF_ENDPOINT; what has arrived is kept.",
            )
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            return MscvtError(
                f"{where}: {endpoint} answers what is no description of a model: {_reason(error)}",
                hint="Does HF_ENDPOINT name a hub?",
            )
        return MscvtError(
            f"{where}: {endpoint} can't be reached: {_reason(error)}",
            hint="Is there a proxy to be set (HTTPS_PROXY), or a mirror (HF_ENDPOINT)? --source modelscope takes "
            "another hub.",
        )

    def _cached(self, repository: str, revision: str | None) -> str:
        """Where a model is that was downloaded into the library's cache."""
        from huggingface_hub import snapshot_download

        with suppress(LocalEntryNotFoundError, *_ANSWERS):
            folder = snapshot_download(repository, revision=revision, local_files_only=True)
            return f"The cache of the hub has it: give {folder} to the conversion."
        return "Unset it where there is a network."

    def _nearest_revision(self, repository: str, revision: str | None) -> str | None:
        with suppress(*_ANSWERS):
            refs = self._api.list_repo_refs(repository)
            names = [ref.name for ref in (*refs.branches, *refs.tags)]
            return did_you_mean(revision or "", names) or f"It has {', '.join(sorted(names)[:10])}."
        return None

    def _nearest_repository(self, repository: str) -> str | None:
        with suppress(*_ANSWERS):
            found = self._api.list_models(search=repository.rpartition("/")[2], limit=_SUGGESTED)
            return did_you_mean(repository, [model.id for model in found])
        return None


def _timeout() -> int:
    return max(_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _hub_file(sibling: Any) -> HubFile:
    """A file as the hub describes it; of files that are not in LFS it states git's own checksum."""
    lfs = sibling.lfs
    known = make_sum("sha256", lfs.sha256) if lfs else make_sum("git-sha1", sibling.blob_id)
    size = sibling.size if sibling.size is not None else getattr(lfs, "size", None)
    return HubFile(sibling.rfilename, size if isinstance(size, int) else -1, known)


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()  # as it comes: of a chunk of a wanted size, a break would lose the beginning
    except _TRANSPORT as error:
        raise BrokenTransferError(_reason(error)) from None


def _status(error: Exception) -> int | None:
    """The status of an answer; None where there was none."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    """The first line of what the library says, which may go on for many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0] if lines else type(error).__name__)
