"""What people reported of what training records, each as the command line that they gave."""

import json
from argparse import Namespace

import pytest
import torch

from command_line import run_main
from reported_runs import assert_way_back, config_of, record, recorded
from small_configurations import QWEN
from trained_checkpoint import PP, TP, Run


@pytest.fixture
def make(tmp_path):
    return lambda model_type="qwen3", config=QWEN, **options: Run(tmp_path, model_type, config, options)


def test_rotary_base_and_epsilon_of_the_training_run_are_written_and_said(make):
    run = make()
    record(run, recorded(QWEN, rotary_base=1000000, norm_epsilon=1e-2))
    said = assert_way_back(run)
    written = config_of(run.back)
    assert (written["rope_theta"], written["rms_norm_eps"]) == (1000000, 0.01)
    assert "rope_theta is 1000000" in said
    assert "rms_norm_eps is 0.01" in said


def test_head_that_was_trained_apart_is_written_and_the_configuration_says_so(make):
    run = make()
    record(run, recorded(QWEN))
    (run.hf / "config.json").write_text(json.dumps({**QWEN, "tie_word_embeddings": True}))
    said = assert_way_back(run)
    assert config_of(run.back)["tie_word_embeddings"] is False
    assert "tie_word_embeddings is false" in said


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ((3, 1), {"decoder_first_pipeline_num_layers": 3, "decoder_last_pipeline_num_layers": None}),
        ((1, 3), {"decoder_last_pipeline_num_layers": 3}),
        ((1, 2, 1), {"decoder_first_pipeline_num_layers": 1, "decoder_last_pipeline_num_layers": 1}),
    ],
    ids=str,
)
def test_stages_of_unequal_length_are_read_as_megatron_records_them(make, stages, said):
    run = make(**{PP: len(stages)}, num_layer_list=stages)
    record(run, recorded(QWEN, stages=len(stages), **said))
    assert_way_back(run)


def test_virtual_stages_are_read_by_their_number(make):
    run = make(**{PP: 2}, num_layers_per_virtual_pipeline_stage=1)
    record(run, recorded(QWEN, stages=2, virtual_pipeline_model_parallel_size=2))
    assert_way_back(run)


def test_checkpoint_without_args_is_read_with_its_configuration_and_options(make):
    run = make(**{TP: 2, PP: 2}, noop_layers=(0, 5))
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in state.items() if name != "args"}, path)
    where = ("--load-dir", run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    for options in ((), ("--tp", 1, "--pp", 4), ("--tp", 1, "--pp", 2)):
        refused = run_main("mg2hf", *where, *options)
        assert refused.code == 1
        assert "give them as options, such as --tp 2" in refused.err
        assert "args say" not in refused.err
    assert_way_back(run, "--tp", 2, "--pp", 2, "--noop-layers", "0,5")


def test_padded_vocabulary_that_is_not_recorded_is_read_as_the_hint_says(make):
    run = make(make_vocab_size_divisible_by=32)
    record(run, recorded(QWEN, padded_vocab_size=None))
    refused = run_main("mg2hf", "--load-dir", run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    assert refused.code == 1
    assert "--make-vocab-size-divisible-by N" in refused.err
    assert_way_back(run, "--make-vocab-size-divisible-by", 32)


def test_file_that_an_older_pickle_protocol_wrote_is_read(make):
    run = make()
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save(state, path, pickle_protocol=4)
    assert_way_back(run)
