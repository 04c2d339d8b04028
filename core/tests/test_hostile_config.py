"""config.json that nobody vouches for: an error that names the file and the field, at once."""

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.model.family import ModelType
from mscvt.model.fields import count, counts
from mscvt.model.hyperparameters import hyperparameters, model_fields
from mscvt.plugins.defaults import mscvt_layers

FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = {
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
EXPERTS = ModelType(
    "sparse",
    ("sparse",),
    fields={
        "num_experts": count("num_experts", "num_local_experts"),
        "moe_intermediate_size": count("moe_intermediate_size"),
        "decoder_sparse_step": count("decoder_sparse_step", default=1),
        "mlp_only_layers": counts("mlp_only_layers", default=()),
        "n_shared_experts": count("n_shared_experts", default=None, least=0),
    },
)
SPARSE = PLAIN | {"num_experts": 4, "moe_intermediate_size": 8}


def folder_with(tmp_path, content):
    folder = tmp_path / "hf"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    return folder


TEXTS = {
    "empty": b"",
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "text": b'"llama"',
    "unfinished": b'{"a": 1',
    "two_objects": b"{}{}",
    "not_utf8": b'{"a": "\xff"}',
    "utf16": json.dumps(PLAIN).encode("utf-16"),
    "nul_bytes": b"\0" * 100,
    "objects_nested_deep": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "arrays_nested_deep": b"[" * 1_000_000,
    "integer_of_many_digits": b'{"hidden_size": ' + b"9" * 50_000 + b"}",
    "larger_than_any": b" " * (17 << 20) + b"{}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_configuration_that_is_no_json_object_is_refused_by_name(name, tmp_path):
    began = time.thread_time()
    with pytest.raises(MscvtError, match=r"config\.json"):
        read_config(folder_with(tmp_path, TEXTS[name]))
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("what", ["pipe", "folder", "loop", "link", "dangling", "nothing"])
def test_configuration_that_is_no_file_of_the_folder_is_refused(what, tmp_path):
    path = tmp_path / "config.json"
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to("config.json")
        case "link":
            path.symlink_to("/etc/hostname")
        case "dangling":
            path.symlink_to("blob")
    with pytest.raises(MscvtError, match=r"config\.json"):
        read_config(tmp_path)


def test_configuration_of_a_hugging_face_cache_is_read(tmp_path):
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123").write_text(json.dumps(PLAIN))
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    assert read_config(snapshot) == PLAIN


WRONG = {
    f"{field}_{shown}": ({field: value}, field)
    for field in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "num_experts")
    for shown, value in (
        ("zero", 0),
        ("negative", -8),
        ("fraction", 8.0),
        ("infinite", float("inf")),
        ("boolean", True),
        ("text", "8"),
        ("list", [8]),
        ("object", {"value": 8}),
        ("null", None),
        ("huge", 10**30),
    )
} | {
    "layers_10_to_12": ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
    "experts_10_to_12": ({"num_experts": 10**12}, "num_experts"),
    "layers_times_experts": ({"num_hidden_layers": 10_000, "num_experts": 10_000}, "10000 layers with 10000 experts"),
    "hidden_not_divisible_by_heads": ({"hidden_size": 25}, "hidden size 25 doesn't divide into 4 heads"),
    "heads_not_divisible_by_groups": ({"num_key_value_heads": 3}, "4 attention heads don't divide into 3 kv groups"),
    "head_dim_zero": ({"head_dim": 0}, "head_dim is 0"),
    "groups_list": ({"num_key_value_heads": [2]}, "num_key_value_heads is list"),
    "epsilon_text": ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
    "theta_object": ({"rope_theta": {"a": 1}}, "rope_theta is dict"),
    "theta_boolean": ({"rope_theta": True}, "rope_theta is True"),
    "tied_text": ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
    "positions_text": ({"max_position_embeddings": "long"}, "max_position_embeddings is 'long'"),
    "step_zero": ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
    "dense_layers_text": ({"mlp_only_layers": "012"}, "mlp_only_layers is '012'"),
    "dense_layers_nested": ({"mlp_only_layers": [[1]]}, "mlp_only_layers is list"),
    "shared_experts_negative": ({"n_shared_experts": -1}, "n_shared_experts is -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_value_is_refused_with_file_and_field(name):
    changes, said = WRONG[name]
    with pytest.raises(MscvtError) as caught:
        hyperparameters(SPARSE | changes, EXPERTS, "folder/config.json")
    assert str(caught.value).startswith("folder/config.json: ")
    assert said in str(caught.value)


def test_every_impossible_value_is_listed_at_once():
    config = {"hidden_size": -1, "num_attention_heads": "4", "vocab_size": None}
    with pytest.raises(MscvtError) as caught:
        hyperparameters(SPARSE | config, EXPERTS, "config.json")
    assert len(caught.value.faults) == 3


def test_huge_value_is_shown_shortened():
    with pytest.raises(MscvtError) as caught:
        hyperparameters(SPARSE | {"hidden_size": "x" * 10**6}, EXPERTS, "config.json")
    assert len(str(caught.value)) < 400


def test_null_means_that_a_field_is_absent():
    nulls = dict.fromkeys(["num_key_value_heads", "head_dim", "rope_theta", "tie_word_embeddings", "mlp_only_layers"])
    h = hyperparameters(SPARSE | nulls, EXPERTS, "config.json")
    assert (h["num_query_groups"], h["kv_channels"], h["tie_word_embeddings"]) == (4, 6, False)
    nested = hyperparameters(
        SPARSE | {"rope_parameters": {"rope_theta": 5}, "rope_theta": None}, EXPERTS, "config.json"
    )
    assert nested["rotary_base"] == 5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(0, 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PATHS = sorted({path.partition(".")[0] for field in model_fields(EXPERTS).values() for path in field.paths})


def sizes_or_none(config, where):
    """The sizes, or None where they were refused by the file's name; any other error is one of the test."""
    try:
        return hyperparameters(config() if callable(config) else config, EXPERTS, where)
    except MscvtError as error:
        if "config.json" not in str(error):
            raise
        return None


@settings(FUZZ, max_examples=400)
@given(changes=st.dictionaries(st.sampled_from(PATHS), VALUES, min_size=1, max_size=4))
def test_configuration_of_any_values_gives_sizes_or_an_error(changes):
    h = sizes_or_none(SPARSE | changes, "folder/config.json")
    if h is not None:
        assert len(mscvt_layers(h)) == h["num_layers"]
        assert h["num_attention_heads"] % h["num_query_groups"] == 0


@settings(FUZZ, max_examples=300)
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=4))
def test_damaged_configuration_is_read_or_refused(edits, tmp_path):
    content = bytearray(json.dumps(SPARSE).encode())
    for place, new in edits:
        at = int(place * len(content))
        content[at : at + 2] = new
    folder = folder_with(tmp_path, bytes(content))
    h = sizes_or_none(lambda: read_config(folder), folder / "config.json")
    assert h is None or h["hidden_size"] > 0
