"""LoRA of Megatron-Bridge: every factor is cut, also where the weight's own cut would leave it whole.

It saves factors in torch_dist, of whole matrices, one for all layers; here the way it does, with torch's own classes.
"""

from argparse import Namespace

import pytest
import torch
from dist_checkpoints import pieces, write_folder
from safetensors.torch import load_file

import support_table
from command_line import run_main
from golden_cases import huggingface_digests
from lora_cases import merged
from mscvt.formats.peft.config import read_adapter_config
from mscvt.plugins.registry import load_registry
from mscvt.testing import digest, save_huggingface, shards_in, source_tensors

RANK, ALPHA, TP = 4, 8, 2
QWEN3_MOE = next(suite for suite in support_table.suites() if suite.model_type == "qwen3-moe")
TO_DIST = ("--dialect", "megatron", "--ckpt-format", "torch_dist")
GROUPS, QUERIES, CHANNEL, HIDDEN, FFN = 2, 2, 3, 10, 14
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": GROUPS * QUERIES,
    "num_key_value_heads": GROUPS,
    "head_dim": CHANNEL,
    "vocab_size": 16,
    "tie_word_embeddings": False,
}
HEADS = GROUPS * QUERIES * CHANNEL
ROWS = {"q": HEADS, "k": GROUPS * CHANNEL, "v": GROUPS * CHANNEL, "o": HIDDEN, "gate": FFN, "up": FFN, "down": HIDDEN}
COLUMNS = {**dict.fromkeys(("q", "k", "v", "gate", "up"), HIDDEN), "o": HEADS, "down": FFN}


def name_of(layer, part):
    return f"model.layers.{layer}.{'self_attn' if part in 'qkvo' else 'mlp'}.{part}_proj"


def drawn(random, *shape):
    return torch.randn(shape, generator=random).bfloat16()


def half(tensor, rank, dimension=0):
    """What a tensor rank has of a factor that is cut into equal runs."""
    return tensor.chunk(TP, dimension)[rank].clone()


def factors_on(rank, a, b):
    """A layer's factors on a tensor rank, as Megatron-Bridge keeps them; of two kv groups each rank has one."""
    qkv = [b["q"].chunk(GROUPS)[rank], b["k"].chunk(GROUPS)[rank], b["v"].chunk(GROUPS)[rank]]
    return {
        "self_attention.linear_qkv": (half(a["q"], rank), torch.cat(qkv)),
        "self_attention.linear_proj": (half(a["o"], rank, 1), half(b["o"], rank)),
        "mlp.linear_fc1": (half(a["gate"], rank), torch.cat([half(b["gate"], rank), half(b["up"], rank)])),
        "mlp.linear_fc2": (half(a["down"], rank, 1), half(b["down"], rank)),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with factors, the weights, and the factors as Hugging Face has them."""
    folder, random = tmp_path_factory.mktemp("bridge"), torch.Generator().manual_seed(1)
    tensors = {f"{name_of(n, part)}.weight": drawn(random, ROWS[part], COLUMNS[part]) for n in (0, 1) for part in ROWS}
    norms = [f"model.layers.{n}.{end}_layernorm.weight" for n in (0, 1) for end in ("input", "post_attention")]
    tensors |= {name: drawn(random, HIDDEN) for name in (*norms, "model.norm.weight")}
    tensors |= {name: drawn(random, 16, HIDDEN) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_huggingface(folder / "hf", CONFIG, tensors)
    words = ["--dialect", "megatron", "--tp", str(TP), "--load-dir", folder / "hf", "--save-dir", folder / "mg"]
    assert run_main("hf2mg", *words).code == 0
    shared = {part: drawn(random, RANK, COLUMNS[part]) for part in ("q", "o", "gate", "down")}
    shared |= dict.fromkeys("kv", shared["q"]) | {"up": shared["gate"]}
    a = {layer: {part: tensor + layer for part, tensor in shared.items()} for layer in (0, 1)}
    b = {layer: {part: drawn(random, ROWS[part], RANK) for part in ROWS} for layer in (0, 1)}
    for path in sorted((folder / "mg").glob("*/*/model_optim_rng.pt")):
        state, rank = shards_in(folder / "mg")[path.parent.name], int(path.parent.name[8:10])
        for layer in (0, 1):
            for module, pair in factors_on(rank, a[layer], b[layer]).items():
                for end, factor in zip(("in", "out"), pair, strict=True):
                    state["model"][f"decoder.layers.{layer}.{module}.adapter.linear_{end}.weight"] = factor
        torch.save({**state, "args": Namespace(**vars(state["args"]))}, path)
    factors = {f"base_model.model.{name_of(n, p)}.lora_A.weight": a[n][p] for n in (0, 1) for p in ROWS}
    factors |= {f"base_model.model.{name_of(n, p)}.lora_B.weight": b[n][p] for n in (0, 1) for p in ROWS}
    return folder / "mg", tensors, factors


def test_factors_are_gathered_and_merged(trained, tmp_path):
    folder, tensors, factors = trained
    outcome = run_main("mg2hf", "--load-dir", folder, "--save-dir", tmp_path / "hf", "--lora-alpha", ALPHA)
    assert outcome.code == 0, outcome.err
    assert huggingface_digests(tmp_path / "hf") == digests(tensors, factors)


def test_factors_become_an_adapter(trained, tmp_path):
    folder, _, factors = trained
    words = ["--load-dir", folder, "--save-dir", tmp_path / "out", "--lora-alpha", ALPHA, "--save-lora-to-hf"]
    assert run_main("mg2hf", *words).code == 0
    exported = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert exported.keys() == factors.keys()
    assert all(torch.equal(exported[name], factors[name]) for name in factors)


def test_factors_for_it_are_not_written(trained, tmp_path):
    words = ["--dialect", "megatron", "--lora-load", tmp_path / "adapter", "--save-lora-to-mg"]
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    names = (f"base_model.model.{name_of(0, 'q')}.lora_{which}.weight" for which in "AB")
    pair = torch.zeros(1, HIDDEN), torch.zeros(HEADS, 1)
    torch.save(dict(zip(names, pair, strict=True)), tmp_path / "adapter" / "adapter_model.bin")
    hf = trained[0].parent / "hf"
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", *words)
    assert outcome.code == 1
    assert "can't be written for Megatron-Bridge" in outcome.err


def save_distributed(folder, tensors):
    """Factors as global tensors, each cut into halves of its rows as two tensor ranks cut them; no args."""
    cut = {name: list(pieces(t, [*[[]] * (t.ndim - 2), [t.shape[-2] // TP], []])) for name, t in tensors.items()}
    write_folder(folder / "iter_0000007", cut)
    (folder / "iter_0000007" / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    torch.save({"iteration": 7}, folder / "iter_0000007" / "common.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def run(*words):
    outcome = run_main(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def check_merged(base, factors, expected, adapter, tmp_path):
    """See that factors are merged into a base, and become an adapter; `expected` are the weights, digested."""
    words = ["--lora-alpha", ALPHA, "--save-dir"]
    run("mg2hf", "--load-dir", base, "--lora-load", factors, *words, tmp_path / "hf")
    found = huggingface_digests(tmp_path / "hf")
    assert found == {name: expected[name] for name in found}
    words = ["--hf-cfg-dir", base.parent / "hf", "--save-lora-to-hf", *words]
    run("mg2hf", "--load-dir", factors, *words, tmp_path / "out")
    exported = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert exported.keys() == adapter.keys()
    assert all(torch.equal(exported[name], adapter[name]) for name in adapter)


def digests(tensors, factors, rank_of=lambda name: RANK):
    """Digests of weights with factors merged."""
    found = {}
    for name, tensor in tensors.items():
        a, b = (f"base_model.model.{name.removesuffix('.weight')}.lora_{which}.weight" for which in "AB")
        scale = ALPHA / rank_of(name)
        found[name] = digest(merged(tensor, factors[a], factors[b], scale) if a in factors else tensor)
    return found


@pytest.fixture(scope="module")
def distributed(trained):
    """The base in torch_dist."""
    folder = trained[0].parent
    run("hf2mg", *TO_DIST, "--load-dir", folder / "hf", "--save-dir", folder / "dist")
    return folder / "dist"


@pytest.mark.parametrize("is_apart", [False, True])
def test_factors_in_a_distributed_checkpoint(is_apart, trained, distributed, tmp_path):
    _, tensors, factors = trained
    parts = ("q", "v", "o", "up") if is_apart else tuple(ROWS)
    factors = {name: t for name, t in factors.items() if name.split(".")[6].removesuffix("_proj") in parts}
    random, stacked = torch.Generator().manual_seed(2), {}
    if is_apart:
        factors = {name: drawn(random, *t.shape) for name, t in factors.items()}

    def stack(part, which):
        return torch.stack([factors[f"base_model.model.{name_of(n, part)}.lora_{which}.weight"] for n in (0, 1)])

    def put(module, a, b, part=""):
        stacked[f"decoder.layers.{module}.adapter{part}.linear_in.weight"] = a
        stacked[f"decoder.layers.{module}.adapter{part}.linear_out.weight"] = b

    put("self_attention.linear_proj", stack("o", "A"), stack("o", "B"))
    if is_apart:
        for part, module in {"q": "linear_qkv", "v": "linear_qkv", "up": "linear_fc1"}.items():
            put(
                f"{'mlp' if part == 'up' else 'self_attention'}.{module}",
                stack(part, "A"),
                stack(part, "B"),
                f".adapter_{part}",
            )
    else:
        qkv = torch.cat([stack(part, "B").unflatten(1, (GROUPS, -1)) for part in "qkv"], 2).flatten(1, 2)
        put("self_attention.linear_qkv", stack("q", "A"), qkv)
        put("mlp.linear_fc1", stack("gate", "A"), torch.cat([stack("gate", "B"), stack("up", "B")], 1))
        put("mlp.linear_fc2", stack("down", "A"), stack("down", "B"))
    saved = save_distributed(tmp_path / "factors", stacked)
    check_merged(distributed, saved, digests(tensors, factors), factors, tmp_path)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A model with experts in torch_dist, and its tensors."""
    folder = tmp_path_factory.mktemp("mixture")
    tensors = source_tensors(load_registry().family("qwen3-moe"), QWEN3_MOE.config)
    hf = save_huggingface(folder / "hf", QWEN3_MOE.config, tensors)
    run("hf2mg", *TO_DIST, "--load-dir", hf, "--save-dir", folder / "mg")
    return folder / "mg", tensors


@pytest.mark.parametrize("is_shared", [False, True])
def test_factors_of_grouped_experts_have_a_rank_of_their_own(is_shared, mixture, tmp_path):
    """A pair for each expert, with the experts' dimension, or one for all of them without."""
    base, tensors = mixture
    config, rank = QWEN3_MOE.config, 2
    layers, experts = config["num_hidden_layers"], config["num_local_experts"]
    rows, columns = tensors["model.layers.0.mlp.experts.0.up_proj.weight"].shape
    random = torch.Generator().manual_seed(3)
    sizes = (layers,) if is_shared else (layers, experts)
    fc1 = drawn(random, *sizes, rank, columns), drawn(random, *sizes, 2 * rows, rank)
    heads = tensors["model.layers.0.self_attn.o_proj.weight"].shape
    proj = drawn(random, layers, RANK, heads[1]), drawn(random, layers, heads[0], RANK)
    stacked, factors = {}, {}
    for module, pair in {"mlp.experts.experts.linear_fc1": fc1, "self_attention.linear_proj": proj}.items():
        for end, factor in zip(("in", "out"), pair, strict=True):
            stacked[f"decoder.layers.{module}.adapter.linear_{end}.weight"] = factor
    for layer in range(layers):
        prefix = f"base_model.model.model.layers.{layer}"
        for which, factor in zip("AB", proj, strict=True):
            factors[f"{prefix}.self_attn.o_proj.lora_{which}.weight"] = factor[layer]
        for expert in range(experts):
            a, b = (factor[layer] if is_shared else factor[layer, expert] for factor in fc1)
            for half, part in enumerate(("gate", "up")):
                factors[f"{prefix}.mlp.experts.{expert}.{part}_proj.lora_A.weight"] = a
                factors[f"{prefix}.mlp.experts.{expert}.{part}_proj.lora_B.weight"] = b.chunk(2)[half]
    saved = save_distributed(tmp_path / "factors", stacked)
    expected = digests(tensors, factors, lambda name: rank if ".experts." in name else RANK)
    check_merged(base, saved, expected, factors, tmp_path)
    said = read_adapter_config(tmp_path / "out")
    scales = [said.scale_of(f"model.layers.0.{end}") for end in ("mlp.experts.1.up_proj", "self_attn.o_proj")]
    assert scales == [ALPHA / rank, ALPHA / RANK]


def test_factors_that_can_not_be_read_are_named(trained, distributed, tmp_path):
    proj, up = (
        f"decoder.layers.{name}" for name in ("self_attention.linear_proj", "mlp.linear_fc1.adapter.adapter_up")
    )
    for tensors, fragment in (
        (
            {f"{proj}.adapter.weight_magnitude": torch.zeros(2, 2, HIDDEN)},
            "weight_magnitude (model of rank tp 0, pp 0, ep 0) is of DoRA",
        ),
        ({f"{proj}.adapters.0.linear_in.weight": torch.zeros(2, 4, 4)}, "several adapters"),
        (
            {f"{up}.linear_{end}.weight": torch.zeros(2, 12, 4) for end in ("in", "out")},
            "adapter_up.linear_out.weight was saved by 2 tensor ranks, each of which divided",
        ),
    ):
        cut = {
            name: list(pieces(t, [[], [t.shape[1] * at // 4 for at in (1, 2, 3)], []])) for name, t in tensors.items()
        }
        saved = save_distributed(tmp_path / fragment[:9], {})
        write_folder(saved / "iter_0000007", cut)
        words = ["--load-dir", distributed, "--lora-load", saved, "--save-dir", tmp_path / "hf"]
        outcome = run_main("mg2hf", *words, "--lora-alpha", ALPHA)
        assert outcome.code == 1
        assert fragment in outcome.err
