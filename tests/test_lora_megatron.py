"""LoRA of Megatron-Bridge: every factor is cut, also where the weight's own cut would leave it whole."""

from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file

from command_line import run_main
from golden_cases import huggingface_digests
from lora_cases import merged
from mscvt.testing import digest, save_huggingface, shards_in

RANK, ALPHA, TP = 4, 8, 2
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
    expected = {}
    for name, tensor in tensors.items():
        a, b = (f"base_model.model.{name.removesuffix('.weight')}.lora_{which}.weight" for which in "AB")
        is_adapted = a in factors
        expected[name] = digest(merged(tensor, factors[a], factors[b], ALPHA / RANK) if is_adapted else tensor)
    assert huggingface_digests(tmp_path / "hf") == expected


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
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    hf = trained[0].parent / "hf"
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", *words)
    assert outcome.code == 1
    assert "can't be written for Megatron-Bridge" in outcome.err
