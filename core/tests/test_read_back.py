"""What hf2mg records is read back before anything is written: layers that a plugin enumerates, and its own `args`."""

import pytest
from small_plugins import CONFIG, registry_of

from mscvt import DECODER, DENSE, EXPERTS, MOE, Layer, MscvtError, count
from mscvt.dialects.options import Options
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.recorded_models import model_from_args
from mscvt.jobs.request import Request
from mscvt.model.family import ModelType
from mscvt.testing import contents_in, hf2mg, mg2hf, save_huggingface, shards_in, source_tensors

FIELDS = {"num_experts": count("num_experts"), "moe_intermediate_size": count("moe_intermediate_size")}
MIXED = {**CONFIG, "num_experts": 2, "moe_intermediate_size": 6}
NAMES = {**DECODER, "moe": EXPERTS}
BETWEEN = [Layer(0, DENSE), Layer(1, MOE), Layer(2, DENSE), Layer(3, MOE)]
DIALECTS = [Options(), Options(dialect="megatron"), Options(dialect="megatron", ckpt_format="torch_dist")]
names = pytest.mark.parametrize("options", DIALECTS, ids=["mindspeed", "megatron", "torch_dist"])


def pattern(h, layers):
    return {"moe_layer_freq": [int("moe" in layer.kind) for layer in layers]}


def registry_with(args=None, layers=BETWEEN):
    """A model type with experts whose layers the plugin enumerates itself, of which no field tells."""
    return registry_of(ModelType("acme", ("acme",), FIELDS, args=args or {}), NAMES, mscvt_layers=lambda: layers)


def source(folder, registry, config=MIXED):
    save_huggingface(folder, config, source_tensors(registry.family("acme"), config))
    return folder


@names
@pytest.mark.parametrize("args", [None, pattern], ids=["core", "plugin"])
def test_layers_that_a_plugin_enumerates_are_read_back(options, args, tmp_path):
    """Whether the core records which layers have experts, or the plugin itself."""
    registry = registry_with(args)
    hf = source(tmp_path / "hf", registry)
    hf2mg(hf, tmp_path / "mg", options, registry=registry)
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=hf, registry=registry)
    assert contents_in(tmp_path / "back") == contents_in(hf)


@pytest.mark.parametrize(("layers", "dense", "step"), [(2, 1, 2), (3, 2, 2), (3, 1, 2), (5, 1, 2), (4, 3, 3)], ids=str)
@names
def test_layers_that_several_numbers_say_are_those_of_the_configuration(options, layers, dense, step, tmp_path):
    fields = {**FIELDS, **{name: count(name) for name in ("first_k_dense_replace", "moe_layer_freq")}}
    registry = registry_of(ModelType("acme", ("acme",), fields), NAMES)
    config = {**MIXED, "num_hidden_layers": layers, "first_k_dense_replace": dense, "moe_layer_freq": step}
    hf = source(tmp_path / "hf", registry, config)
    hf2mg(hf, tmp_path / "mg", options, registry=registry)
    for original in (None, hf):
        back = tmp_path / f"back {original is None}"
        mg2hf(tmp_path / "mg", back, hf_cfg_dir=original, registry=registry)
        assert contents_in(back) == contents_in(hf)


class Trained:
    """A checkpoint of which the args alone are looked at."""

    ckpt_format, ranks = "torch", ((0, 0),)

    def __init__(self, args):
        self.args, self.some_shapes = args, {}


@pytest.mark.parametrize("options", DIALECTS[:2], ids=["mindspeed", "megatron"])
def test_experts_that_are_recorded_in_other_layers_than_the_model_has_them_in_are_refused(options, tmp_path):
    registry = registry_with(pattern)
    hf2mg(source(tmp_path / "hf", registry), tmp_path / "mg", options, registry=registry)
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    asked = Request(tmp_path, Options(dialect=options.dialect))
    assert model_from_args(Trained(args), None, asked, registry).kept == tuple(BETWEEN)
    for wrong in ([0, 1, 1, 1], [0, 1, 0, 1, 0]):
        with pytest.raises(MscvtError, match=r"experts in other layers than|can't be understood"):
            model_from_args(Trained({**args, "moe_layer_freq": wrong}), None, asked, registry)


def test_slots_without_a_layer_may_be_in_the_list(tmp_path):
    registry = registry_with(pattern)
    options = Options(noop_layers=(1,))
    hf2mg(source(tmp_path / "hf", registry), tmp_path / "mg", options, registry=registry)
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    for recorded in ([0, 1, 0, 1], [0, 0, 1, 0, 1]):
        model = model_from_args(
            Trained({**args, "moe_layer_freq": recorded}), None, Request(tmp_path, Options()), registry
        )
        assert model.kept == tuple(BETWEEN)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"num_layers": 7}, "otherwise than they are, first decoder.layers.4."),
        ({"kv_channels": 3}, "they describe 8 tensors otherwise than they are, first decoder.layers.0.self_attention."),
        ({"hidden_size": None}, "the checkpoint's args don't describe the model: hidden_size is not recorded"),
    ],
    ids=["layers", "layout", "error"],
)
def test_args_that_say_another_model_are_refused_before_anything_is_written(said, message, tmp_path):
    registry = registry_of(ModelType("acme", ("acme",), args=lambda h, layers: said))
    hf = source(tmp_path / "hf", registry, CONFIG)
    with pytest.raises(MscvtError) as caught:
        prepare_to_megatron(Request(hf, Options()), registry)
    assert "could not be read back (plugin mscvt-acme 1.2): " in caught.value.message
    assert message in caught.value.message
    assert "fault of the plugin" in caught.value.hint
