"""What several modules of tests ask for: a hub to download from, a model, and whole outputs to compare with."""

import os

import huggingface_hub.constants as hub_constants
import pytest

from downloads import EXTRA, NAME, model_files
from hub_server import Repository, serve_hub
from mscvt.hubs import transfer
from small_conversions import DIRECTIONS, convert, make_sources, tree


@pytest.fixture(scope="module")
def server():
    with serve_hub() as running:
        yield running


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.setattr(transfer, "WAITS", (0.0, 0.0))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    server.repositories = {NAME: Repository({**model_files(), **EXTRA})}
    server.token = None
    server.requests.clear()
    server.foreign_tokens.clear()
    return server


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same small model in both formats."""
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def no_sync(monkeypatch):
    """Have nothing wait for the disk, which matters only where the power fails."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def wholes(sources, tmp_path_factory):
    """What each direction makes of the module's sources."""
    folder = tmp_path_factory.mktemp("wholes")
    for direction in DIRECTIONS:
        convert(direction, sources, folder / direction, sync_seconds=60.0)
    return {direction: tree(folder / direction) for direction in DIRECTIONS}
