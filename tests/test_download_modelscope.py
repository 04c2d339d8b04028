"""Downloading from ModelScope, whose client an extra installs."""

import builtins

import pytest

from command_line import run_main
from downloads import EXTRA, LAST, NAME, NEEDED, SHARD, check_whole, model_files, names_in, refused
from hub_server import Repository, serve_hub
from mscvt.hubs import transfer


@pytest.fixture(scope="module")
def server():
    with serve_hub() as running:
        yield running


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    monkeypatch.setattr("modelscope_hub.api.get_default_config", lambda: configuration(server.url, tmp_path))
    monkeypatch.setattr(transfer, "WAITS", (0.0, 0.0))
    server.repositories = {NAME: Repository({**model_files(), **EXTRA})}
    server.requests.clear()
    return server


def configuration(url, folder):
    from modelscope_hub import HubConfig

    return HubConfig(endpoint=url, token="", cache_dir=folder / "cache", config_dir=folder / "config")


def fetch(folder, *words):
    return run_main("download", NAME, "--to", folder, "--source", "modelscope", *words)


def test_model_is_fetched_over_transfers_that_break(hub, tmp_path):
    hub.repositories[NAME].cuts = {SHARD: [100_000, 0], "config.json": [3]}
    outcome = fetch(tmp_path / "hf")
    assert outcome.code == 0, outcome.err
    check_whole(tmp_path / "hf")
    assert set(hub.fetched()) == NEEDED
    spans = [span for _, path, span in hub.requests if path == SHARD]
    assert len(spans) == 3
    assert int(spans[-1].removeprefix("bytes=").partition("-")[0]) > 0


def test_wrong_bytes_are_refused_and_not_there(hub, tmp_path):
    hub.repositories[NAME].wrong = {LAST: 9}
    outcome = fetch(tmp_path / "hf")
    assert f"{LAST}: wrong bytes arrived twice, their sha256 is " in outcome.err
    assert LAST not in names_in(tmp_path / "hf")


def test_next_run_goes_on(hub, tmp_path):
    hub.repositories[NAME].cuts = {LAST: [0, 0, 0]}
    assert "the transfer broke 3 times" in fetch(tmp_path / "hf").err
    assert fetch(tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine/Other"], "error: mine/Other: ModelScope has no such model"),
        ([NAME, "--revision", "mian"], f"error: {NAME}: has no revision mian\nhint: Did you mean main?"),
    ],
    ids=["model", "revision"],
)
def test_what_is_not_there_is_refused(words, said, hub, tmp_path):
    assert said in refused(*words, "--to", tmp_path / "hf", "--source", "modelscope")
    assert not (tmp_path / "hf").exists()


def test_model_that_is_not_for_everybody_is_refused(hub, tmp_path):
    hub.repositories[NAME].refusal = (403, "")
    error = refused(NAME, "--to", tmp_path / "hf", "--source", "modelscope")
    assert "ModelScope refuses it" in error
    assert "Is MODELSCOPE_API_TOKEN valid" in error


def test_missing_client_is_said_with_the_command_that_installs_it(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("modelscope_hub"):
            raise ModuleNotFoundError("No module named 'modelscope_hub'", name="modelscope_hub")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, "mscvt.hubs.modelscope", raising=False)
    error = refused(NAME, "--to", tmp_path / "hf", "--source", "modelscope")
    assert "--source modelscope needs a package that is not installed: modelscope_hub" in error
    assert 'hint: pip install "mscvt[modelscope]"' in error
