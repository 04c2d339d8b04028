"""Descriptions: which rules hold for which layers, what layers of their own sizes become, what does not hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import EP, NAMES, TP, H, L, description, family, shards_of, source_of
from walks import numbered, run, targets

from mscvt.description.chosen import RuleBook, choose_rules
from mscvt.description.description import Alias
from mscvt.dialects import mindspeed
from mscvt.errors import MscvtError
from mscvt.jobs.plans import plan_to_huggingface, plan_to_megatron
from mscvt.layout.rules import TENSOR, Rule, Source, whole
from mscvt.model.family import DENSE, MOE, MTP, MTP_REPEATS, Layer
from mscvt.parallel.grid import Rank
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.by_shard import ByShard


def test_shares_are_held_by_all_ranks_that_stand_at_their_place():
    described = description(**{TP: 2, EP: 4}, expert_tensor_parallel_size=1)
    ranks = {}
    for target in targets(ByShard(described)):
        key = target.names[0][2]
        ranks.setdefault(key, []).append([(rank.tensor, rank.expert) for rank, _, _ in target.names])
    assert ranks["output_layer.weight"] == [[(0, 0), (0, 2)], [(1, 1), (1, 3)]]
    assert ranks["decoder.final_layernorm.weight"] == [[(0, 0), (0, 2), (1, 1), (1, 3)]]
    assert ranks["decoder.layers.1.mlp.experts.local_experts.0.linear_fc1.weight"] == [
        [(0, 0)], [(1, 1)], [(0, 2)], [(1, 3)]
    ]  # fmt: skip


GATE, UP = whole("mlp.gate", "mlp.gate", "ffn hidden"), whole("mlp.up", "mlp.up", "ffn hidden")
BROKEN = {
    "mlp.less: 10 of its 120 elements are in no place": (
        Rule("mlp.less", "ffn hidden", (Source("mlp.gate", "ffn[:11] hidden"),)),
        UP,
    ),
    "mlp.more: some of its elements are in more than one place": (
        Rule("mlp.more", "ffn hidden", (Source("mlp.gate", "ffn hidden"), Source("mlp.up", "ffn[3] hidden"))),
    ),
    "model.layers.0.mlp.gate_proj.weight: 40 of its 120 elements are in no place": (
        Rule("mlp.some", "ffn[:8] hidden", (Source("mlp.gate", "ffn hidden"),)),
        UP,
    ),
    "model.layers.0.mlp.gate_proj.weight: some of its elements are in more than one place": (
        GATE,
        Rule("mlp.again", "ffn[3:5] hidden", (Source("mlp.gate", "ffn hidden"),)),
        UP,
    ),
    "model.layers.0.mlp.gate_proj.weight: its rules give it different shapes, (10, 12), (12, 10)": (
        Rule("mlp.one", "ffn[:3] hidden", (Source("mlp.gate", "ffn hidden"),)),
        Rule("mlp.other", "ffn[3:] hidden", (Source("mlp.gate", "hidden ffn"),)),
        UP,
    ),
    "mlp.up (stage 0, model) is made by two rules": (whole("mlp.up", "mlp.gate", "ffn hidden"), UP),
}


@pytest.mark.parametrize("message", BROKEN)
def test_rules_that_lose_or_repeat_elements_do_not_become_a_plan(message):
    described = description(made=family([Layer(0, DENSE)], BROKEN[message]))
    with pytest.raises(MscvtError) as caught:
        plan_to_megatron(described, source_of(described))
    assert message in str(caught.value)


def test_sizes_that_do_not_divide_are_all_named():
    with pytest.raises(MscvtError) as caught:
        description({**H, "vocab_size": 13, "padded_vocab_size": 13, "num_experts": 3}, **{TP: 4, EP: 2})
    text = str(caught.value)
    assert "13 vocabulary rows (vocab_size) are not divisible by --target-tensor-parallel-size 4" in text
    assert "2 kv groups (num_key_value_heads)" in text
    assert "3 experts are not divisible by --target-expert-parallel-size 2" in text
    assert "--make-vocab-size-divisible-by" in caught.value.hint


def tensors_of(described):
    """Numbered tensors for all that a description reads."""
    shapes = ByShard(described).expected
    return dict(zip(shapes, numbered(*shapes.values()), strict=True))


def there_and_back(described):
    """The tensors, and the shards that they become; the shards give the tensors back."""
    tensors = tensors_of(described)
    shards = run(ByShard(described), tensors)
    back = run(ByHuggingFace(described), shards)
    assert back.keys() == tensors.keys()
    assert all((back[name] == tensor).all() for name, tensor in tensors.items())
    return tensors, shards


def test_rules_may_divide_the_experts_of_a_tensor_differently():
    gate = "expert moe_ffn hidden"
    rules = (
        Rule("all", "expert moe_ffn[:2] hidden", (Source("moe.expert.gate", gate),)),
        Rule("first", "expert[:3] moe_ffn[2:] hidden", (Source("moe.expert.gate", gate.replace("t", "t[:3]")),)),
        Rule("last", "expert[3:] moe_ffn[2:] hidden", (Source("moe.expert.gate", gate.replace("t", "t[3:]")),)),
        whole("up", "moe.expert.up", gate),
        whole("down", "moe.expert.down", gate),
    )
    described = description(made=family([Layer(0, DENSE), Layer(1, MOE)], rules))
    _, shards = there_and_back(described)
    assert {key.rpartition(".")[2]: shard.shape for (_, _, key), shard in shards.items()}.items() >= {
        "all": (4, 2, 10),
        "first": (3, 4, 10),
        "last": (1, 4, 10),
    }.items()
    plan_to_huggingface(described, shards_of(plan_to_megatron(described, source_of(described))))


def test_rules_of_a_family_are_tried_before_those_of_the_dialect():
    own, other = whole("own", "mlp.up", "ffn hidden"), whole("fc1", "mlp.up", "hidden ffn")
    names = {"mlp.up": "up"}
    assert choose_rules([[own], [other]], names) == [own]
    assert choose_rules([[], [other]], names) == [other]


def test_rule_holds_only_where_all_its_roles_are_and_none_is_taken():
    pair = Rule("pair", "a b", (Source("x", "a[0] b"), Source("y", "a[1] b")))
    one = whole("one", "x", "a b")
    assert choose_rules([[pair], [one]], {"x": "", "y": ""}) == [pair]
    assert choose_rules([[pair], [one]], {"x": ""}) == [one]


def test_rules_of_one_table_may_share_a_role():
    upper, lower = whole("upper", "x", "a"), whole("lower", "x", "a")
    assert choose_rules([[upper, lower]], {"x": ""}) == [upper, lower]


def test_rule_beside_others_needs_them():
    fused = Rule("fused", "a", (Source("x", "a"),), beside=frozenset({"y"}))
    assert choose_rules([[fused]], {"x": ""}) == []
    assert choose_rules([[fused]], {"x": "", "y": ""}) == [fused]


def test_layers_of_the_same_sizes_share_a_layout():
    made = family([Layer(0, DENSE), Layer(1, DENSE), Layer(2, DENSE, sizes={"ffn": 8})])
    layouts = [p.layout for p in description(made=made).parameters if p.key.endswith("mlp.linear_fc1.weight")]
    assert layouts[0] is layouts[1]
    assert layouts[0] is not layouts[2]
    norms = [p.layout for p in description(made=made).parameters if p.key.endswith("input_layernorm.weight")]
    assert norms[0] is norms[1]


def test_layout_depends_on_which_axes_a_name_holds():
    book = RuleBook(mindspeed.rules, (), {"expert": 2, "ffn": 3})
    rule = whole("w", "down", "expert ffn")
    alone, fused = (book.layout(rule, {"down": name}, {}) for name in ("{layer}.{expert}", "{layer}"))
    assert (alone.right[0].shape, fused.right[0].shape) == ((3,), (2, 3))
    assert book.layout(rule, {"down": "{expert}.{layer}"}, {}) is alone


@pytest.mark.parametrize("tp", [1, 2])
def test_layers_may_have_heads_and_ffn_of_their_own(tp):
    wide = {"group": 4, "queries": 3, "slot": 5, "head": 12, "ffn": 6}
    made = family([Layer(0, DENSE), Layer(1, DENSE, sizes=wide)])
    tensors, shards = there_and_back(description(made=made, **{TP: tp}))
    for number, (groups, queries, ffn) in enumerate(((2, 2, 12), (4, 3, 6))):
        prefix = f"model.layers.{number}."
        q, k, v = (torch.from_numpy(tensors[f"{prefix}self_attn.{role}_proj.weight"]) for role in "qkv")
        gate, up = (torch.from_numpy(tensors[f"{prefix}mlp.{half}_proj.weight"]) for half in ("gate", "up"))
        assert q.shape == (groups * queries * 3, 10)
        assert gate.shape == (ffn, 10)
        qkv = torch.cat([t.view(groups, -1, 3, 10) for t in (q, k, v)], 1)
        for rank in range(tp):
            found = {key: shard for (r, _, key), shard in shards.items() if r == Rank(rank, 0, 0)}
            mine = qkv.chunk(tp)[rank].reshape(-1, 10)
            assert (found[f"decoder.layers.{number}.self_attention.linear_qkv.weight"] == mine.numpy()).all()
            mine = torch.cat([gate.chunk(tp)[rank], up.chunk(tp)[rank]])
            assert (found[f"decoder.layers.{number}.mlp.linear_fc1.weight"] == mine.numpy()).all()


def test_layer_may_have_two_attentions_and_two_mlps():
    second = {
        "cross.norm": L + "cross_norm.weight",
        "cross.q": L + "cross.q.weight",
        "cross.kv": L + "cross.kv.weight",
    }
    rules = [
        whole("cross_attention.norm.weight", "cross.norm", "hidden"),
        whole("cross_attention.q.weight", "cross.q", "(head channel) hidden", cuts={"head": TENSOR}),
        Rule(
            "cross_attention.kv.weight",
            "(group half channel) hidden",
            (Source("cross.kv", "(half group channel) hidden"),),
            {"group": TENSOR},
        ),
    ]
    names = {**NAMES, "cross": second}
    made = family([Layer(0, ("attention", "cross", "mlp")), Layer(1, DENSE)], rules, names)
    tensors, shards = there_and_back(description(made=made, **{TP: 2}))
    kv = tensors["model.layers.0.cross.kv.weight"].reshape(2, 2, 3, 10)
    q = tensors["model.layers.0.cross.q.weight"]
    for rank in range(2):
        place = Rank(rank, 0, 0), "model"
        assert (shards[(*place, "decoder.layers.0.cross_attention.q.weight")] == np.split(q, 2)[rank]).all()
        mine = kv[:, rank].reshape(-1, 10)  # this group's key, then its value
        assert (shards[(*place, "decoder.layers.0.cross_attention.kv.weight")] == mine).all()
        assert (*place, "decoder.layers.0.self_attention.linear_qkv.weight") in shards
    assert not any("layers.1.cross" in key for _, _, key in shards)


def test_size_of_a_family_reaches_its_rules():
    names = {**NAMES, "mlp": {**NAMES["mlp"], "own": L + "own"}}
    rules = [whole("own", "own", "double hidden")]
    made = family([Layer(0, DENSE)], rules, names, sizes=lambda h: {"double": 2 * h["hidden_size"]})
    assert tensors_of(description(made=made))["model.layers.0.own"].shape == (20, 10)


@pytest.mark.parametrize("prefix", ["decoder.layers.0.", "mtp.layers.{layer}.", "mtp.final_layernorms.0."])
def test_rule_under_a_layers_prefix_is_refused(prefix):
    made = family([Layer(0, DENSE)], [whole(f"{prefix}mlp.own", "mlp.up", "ffn hidden")])
    with pytest.raises(MscvtError, match=r"mscvt_split_rules for small: the key '.*' has the layer's prefix"):
        description(made=made)


_ENDS = {role: name for role, name in NAMES[MTP].items() if role != "head"}
REPEATS = {**NAMES, MTP: _ENDS, MTP_REPEATS: {"head": L + "lm_head.weight"}}


def test_ends_that_only_some_checkpoints_repeat_are_compared_and_not_given_back():
    described = description(made=family(names=REPEATS), mtp_num_layers=1)
    assert described.aliases == {
        "model.layers.2.embed.weight": Alias("model.embed_tokens.weight", is_written=True, mark="0.embedding"),
        "model.layers.2.lm_head.weight": Alias("lm_head.weight", is_written=False, mark="0.head"),
    }
    needed = source_of(described)
    plan = plan_to_megatron(described, {**needed, "model.layers.2.lm_head.weight": needed["lm_head.weight"]})
    assert plan.equal == (("lm_head.weight", "model.layers.2.lm_head.weight", 140),)
    assert plan_to_megatron(described, needed).equal == ()
    back = plan_to_huggingface(described, shards_of(plan))
    assert {name for file in back.files for name in file.tensors} == needed.keys() | {"model.layers.2.embed.weight"}


def test_ends_that_some_checkpoints_repeat_are_left_out_with_their_layer():
    left_out = description(made=family(names=REPEATS)).left_out
    assert left_out["model.layers.2.lm_head.weight"] == "MTP layers not asked for"


@pytest.mark.parametrize(("repeats", "absent", "written"), [
    (True, None, True), (False, None, False), (False, (), True), (True, ("0.head", "0.embedding"), False)
])  # fmt: skip
def test_repeated_ends_are_given_back_as_recorded_or_as_the_familys_checkpoints_have_them(repeats, absent, written):
    made = family()
    made = replace(made, model_type=replace(made.model_type, repeats_ends=repeats))
    aliases = description(made=made, absent=absent, mtp_num_layers=1).aliases
    assert [alias.is_written for alias in aliases.values()] == [written] * 2


def test_names_of_experts_that_are_left_out_are_all_listed():
    made = family([Layer(0, DENSE), Layer(1, MOE)])
    made.hooks["mscvt_layers"] = lambda model_type, hyperparameters: [Layer(0, DENSE), Layer(1, MOE)][
        : hyperparameters["num_layers"]
    ]
    left_out = description(made=made, num_layers=1).left_out
    assert set(left_out.values()) == {"reduced layers"}
    experts = {f"model.layers.1.experts.{e}.{half}.weight" for e in range(4) for half in ("gate", "up", "down")}
    assert {name for name in left_out if ".experts." in name} == experts
    assert len(left_out) == len(experts) + 2 + 6


def test_reduced_layers_that_no_configuration_describes_are_refused():
    made = family([Layer(0, MOE), Layer(1, DENSE)])
    made.hooks["mscvt_layers"] = lambda model_type, hyperparameters: [Layer(0, MOE), Layer(1, DENSE)][
        -hyperparameters["num_layers"] :
    ]
    with pytest.raises(MscvtError, match=r"--num-layers 1 .* keeps layers of the kinds attention \+ moe, which no"):
        description(made=made, num_layers=1)
