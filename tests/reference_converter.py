"""What a conversion must give, worked out in the simplest way: whole tensors, `chunk` and `cat`.

Written from the format's rules alone, apart from mscvt's code, so that the two can be compared. Slow and
hungry for memory; for models of some kilobytes.
"""

from __future__ import annotations

from typing import Any

import torch

from random_models import WITH_EXPERTS, WITH_LATENT_ATTENTION, Case, is_dense
from reference_placement import chunks, kept_layers, ranks

Tensors = dict[str, torch.Tensor]
Shards = dict[str, dict[str, Tensors]]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
KEPT_DTYPES = ("gate.e_score_correction_bias", "indexer.k_norm.weight", "indexer.k_norm.bias")


def converted(case: Case, source: Tensors) -> Tensors:
    """The source after `--dtype`."""
    if case.dtype is None:
        return source
    return {name: t if name.endswith(KEPT_DTYPES) else t.to(DTYPES[case.dtype]) for name, t in source.items()}


def expected_shards(case: Case, source: Tensors) -> Shards:
    """Path below the save folder -> part -> key -> tensor."""
    weights = converted(case, source)
    found: Shards = {}
    all_chunks, end = chunks(case)
    noop = case.options.get("noop_layers", ())
    real = [slot for _, _, slots in all_chunks for slot in slots if slot not in noop]
    layer_of = dict(zip(sorted(real), kept_layers(case), strict=True))
    for t, e in ranks(case):
        for stage, part, slots in all_chunks:
            path = f"iter_0000001/mp_rank_{t:02d}"
            path += f"_{stage:03d}" if case.pp > 1 else ""
            path += f"_{e:03d}" if case.ep > 1 else ""
            model = found.setdefault(path + "/model_optim_rng.pt", {}).setdefault(part, {})
            cutter = Cutter(case, weights, t, e)
            if (stage, part) == (all_chunks[0][0], all_chunks[0][1]):
                model |= cutter.embedding()
            for number, slot in enumerate(slots):
                if slot in layer_of:
                    model |= cutter.layer(layer_of[slot], f"decoder.layers.{number}.")
            if (stage, part) == end:
                model |= cutter.end()
    return found


class Cutter:
    """The tensors of one rank."""

    def __init__(self, case: Case, weights: Tensors, t: int, e: int) -> None:
        self.case, self.weights, self.t, self.e = case, weights, t, e
        self.fused = case.options.get("transformer_impl") == "transformer_engine"

    def cut(self, tensor: torch.Tensor, dim: int = 0) -> torch.Tensor:
        assert tensor.shape[dim] % self.case.tp == 0
        return tensor.chunk(self.case.tp, dim)[self.t].contiguous()

    def padded(self, name: str) -> torch.Tensor:
        tensor = self.weights[name]
        if multiple := self.case.options.get("make_vocab_size_divisible_by"):
            missing = -len(tensor) % (multiple * self.case.tp)
            tensor = torch.cat([tensor, torch.zeros(missing, tensor.shape[1], dtype=tensor.dtype)])
        return self.cut(tensor)

    def embedding(self) -> Tensors:
        return {"embedding.word_embeddings.weight": self.padded("model.embed_tokens.weight")}

    def end(self) -> Tensors:
        case, found = self.case, {}
        final = "final_layernorm.weight" if case.mtp else "decoder.final_layernorm.weight"
        found[final] = self.weights["model.norm.weight"]
        if not case.config["tie_word_embeddings"]:
            found["output_layer.weight"] = self.padded("lm_head.weight")
        elif case.pp > 1:
            found["output_layer.weight"] = self.padded("model.embed_tokens.weight")
        if case.mtp and case.pp > 1:
            found |= self.embedding()
        for m in range(case.mtp):
            number = case.config["num_hidden_layers"] + m
            theirs = f"model.layers.{number}."
            found |= self.layer(number, f"mtp.layers.{m}.transformer_layer.")
            found[f"mtp.layers.{m}.enorm.weight"] = self.weights[theirs + "enorm.weight"]
            found[f"mtp.layers.{m}.hnorm.weight"] = self.weights[theirs + "hnorm.weight"]
            found[f"mtp.layers.{m}.eh_proj.weight"] = self.cut(self.weights[theirs + "eh_proj.weight"])
            found[f"mtp.final_layernorms.{m}.weight"] = self.weights[theirs + "shared_head.norm.weight"]
        return found

    def layer(self, number: int, prefix: str) -> Tensors:
        latent = self.case.model_type in WITH_LATENT_ATTENTION
        dense = is_dense(self.case, number)
        found = self.latent_attention(number) if latent else self.attention(number)
        own = f"model.layers.{number}."
        fused_input, fused_mlp = self.fused and not latent, self.fused and dense
        key = "self_attention.linear_qkv.layer_norm_weight" if fused_input else "input_layernorm.weight"
        found[key] = self.weights[own + "input_layernorm.weight"]
        key = "mlp.linear_fc1.layer_norm_weight" if fused_mlp else "pre_mlp_layernorm.weight"
        found[key] = self.weights[own + "post_attention_layernorm.weight"]
        if dense:
            found |= self.gated("mlp.linear_fc1.weight", "mlp.linear_fc2.weight", own + "mlp.")
        else:
            found |= self.mixture(own + "mlp.")
        return {prefix + key: tensor for key, tensor in found.items()}

    def attention(self, number: int) -> Tensors:
        c, own = self.case.config, f"model.layers.{number}.self_attn."
        heads, hidden = c["num_attention_heads"], c["hidden_size"]
        groups = c.get("num_key_value_heads", heads)
        channel = c.get("head_dim") or hidden // heads
        q, k, v = (self.weights[f"{own}{name}_proj.weight"] for name in "qkv")
        rows = []
        for group in range(groups):
            each = heads // groups * channel
            rows += [q[group * each : (group + 1) * each]]
            rows += [part[group * channel : (group + 1) * channel] for part in (k, v)]
        found = {
            "self_attention.linear_qkv.weight": self.cut(torch.cat(rows)),
            "self_attention.linear_proj.weight": self.cut(self.weights[own + "o_proj.weight"], 1),
        }
        if self.case.model_type != "llama2":
            found["self_attention.q_layernorm.weight"] = self.weights[own + "q_norm.weight"]
            found["self_attention.k_layernorm.weight"] = self.weights[own + "k_norm.weight"]
        return found

    def latent_attention(self, number: int) -> Tensors:
        c, own, a = self.case.config, f"model.layers.{number}.self_attn.", "self_attention."
        nope, heads = c["qk_nope_head_dim"], c["num_attention_heads"]
        is_lite = self.case.model_type == "deepseek2-lite"
        query = self.weights[own + ("q_proj.weight" if is_lite else "q_a_proj.weight")]
        found = {
            a + "linear_qkv.weight": torch.cat([query, self.weights[own + "kv_a_proj_with_mqa.weight"]]),
            a + "kv_layernorm.weight": self.weights[own + "kv_a_layernorm.weight"],
            a + "linear_proj.weight": self.cut(self.weights[own + "o_proj.weight"], 1),
        }
        ups = {"linear_kv_up_proj": ("kv_b_proj", "linear_kv_nope", "linear_v")}
        if not is_lite:
            found[a + "q_layernorm.weight"] = self.weights[own + "q_a_layernorm.weight"]
            ups["linear_q_up_proj"] = ("q_b_proj", "linear_qk_nope", "linear_qk_rope")
        for key, (name, upper, lower) in ups.items():
            tensor = self.weights[f"{own}{name}.weight"]
            if not self.case.options.get("mla_mm_split"):
                found[f"{a}{key}.weight"] = self.cut(tensor)
                continue
            per_head = tensor.chunk(heads)
            found[f"{a}{upper}.weight"] = self.cut(torch.cat([head[:nope] for head in per_head]))
            found[f"{a}{lower}.weight"] = self.cut(torch.cat([head[nope:] for head in per_head]))
        if self.case.model_type == "deepseek32":
            names = ("k_norm.weight", "k_norm.bias", "weights_proj.weight", "wk.weight", "wq_b.weight")
            found |= {f"{a}dsa_indexer.{name}": self.weights[f"{own}indexer.{name}"] for name in names}
        return found

    def gated(self, fc1: str, fc2: str, own: str, whole: bool = False) -> Tensors:
        gate, up, down = (self.weights[f"{own}{name}_proj.weight"] for name in ("gate", "up", "down"))
        if whole:
            return {fc1: torch.cat([gate, up]), fc2: down}
        return {fc1: torch.cat([self.cut(gate), self.cut(up)]), fc2: self.cut(down, 1)}

    def mixture(self, own: str) -> Tensors:
        case, found = self.case, {"mlp.router.weight": self.weights[own + "gate.weight"]}
        if own + "gate.e_score_correction_bias" in self.weights:
            found["mlp.router.expert_bias"] = self.weights[own + "gate.e_score_correction_bias"]
        if case.model_type in WITH_LATENT_ATTENTION:
            keys = (f"mlp.shared_experts.linear_fc{number}.weight" for number in (1, 2))
            found |= self.gated(*keys, own + "shared_experts.")
        extended = case.options.get("moe_tp_extend_ep", False)
        whole = extended or case.options.get("expert_tensor_parallel_size", case.tp) == 1
        buckets, bucket = (case.ep * case.tp, self.e * case.tp + self.t) if extended else (case.ep, self.e)
        share = (case.config.get("n_routed_experts") or case.config["num_experts"]) // buckets
        experts = [
            self.gated("fc1", "fc2", f"{own}experts.{bucket * share + j}.", whole).values() for j in range(share)
        ]
        if not case.options.get("moe_grouped_gemm"):
            for j, (fc1, fc2) in enumerate(experts):
                found[f"mlp.experts.local_experts.{j}.linear_fc1.weight"] = fc1
                found[f"mlp.experts.local_experts.{j}.linear_fc2.weight"] = fc2
        elif self.fused:
            for j, (fc1, fc2) in enumerate(experts):
                found[f"mlp.experts.linear_fc1.weight{j}"] = fc1
                found[f"mlp.experts.linear_fc2.weight{j}"] = fc2
        else:
            hidden = case.config["hidden_size"]
            found["mlp.experts.weight1"] = torch.stack([fc1.t() for fc1, _ in experts]).view(hidden, -1)
            found["mlp.experts.weight2"] = torch.cat([fc2.t() for _, fc2 in experts])
        return found


def expected_return(case: Case, source: Tensors) -> Tensors:
    """What the way back must give: the kept layers under their new numbers, and the aliases of MTP layers."""
    weights = converted(case, source)
    if case.back_dtype is not None:
        weights = {
            name: t if name.endswith(KEPT_DTYPES) else t.to(DTYPES[case.back_dtype]) for name, t in weights.items()
        }
    count, kept = case.config["num_hidden_layers"], kept_layers(case)
    numbers = {old: new for new, old in enumerate([*kept, *range(count, count + case.mtp)])}
    found: Tensors = {}
    for name, tensor in weights.items():
        if not name.startswith("model.layers."):
            if name != "lm_head.weight" or not case.config["tie_word_embeddings"]:
                found[name] = tensor
            continue
        number, rest = name.removeprefix("model.layers.").split(".", 1)
        if int(number) in numbers:
            found[f"model.layers.{numbers[int(number)]}.{rest}"] = tensor
    head = "model.embed_tokens.weight" if case.config["tie_word_embeddings"] else "lm_head.weight"
    for m in range(case.mtp if case.has_repeated else 0):
        found[f"model.layers.{len(kept) + m}.embed_tokens.weight"] = found["model.embed_tokens.weight"]
        found[f"model.layers.{len(kept) + m}.shared_head.head.weight"] = found[head]
    return found


def expected_args(case: Case) -> dict[str, Any]:
    """What `args` must record, as far as the rules say so."""
    c, options = case.config, case.options
    heads, layers = c["num_attention_heads"], len(kept_layers(case))
    groups = c.get("num_key_value_heads", heads)
    noop = options.get("noop_layers", ())
    step = options.get("make_vocab_size_divisible_by", 0) * case.tp or 1
    args: dict[str, Any] = {
        "tensor_model_parallel_size": case.tp,
        "pipeline_model_parallel_size": case.pp,
        "expert_model_parallel_size": case.ep,
        "expert_tensor_parallel_size": options.get("expert_tensor_parallel_size", case.tp),
        "num_layers": layers + len(noop),
        "hidden_size": c["hidden_size"],
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "num_query_groups": groups,
        "vocab_size": c["vocab_size"],
        "padded_vocab_size": -(-c["vocab_size"] // step) * step,
        "intermediate_size": c["intermediate_size"],
        "ffn_hidden_size": c["intermediate_size"],
        "untie_embeddings_and_output_weights": not c["tie_word_embeddings"],
        "add_position_embedding": True,
        "qk_layernorm": case.model_type != "llama2",
        "norm_epsilon": 1e-5,
        "rotary_base": 5e5,
        "seq_length": 64,
        "transformer_impl": options.get("transformer_impl", "local"),
    }
    if noop:
        args["noop_layers"] = ",".join(map(str, noop))
    if "num_layer_list" in options:
        args["num_layer_list"] = ",".join(map(str, options["num_layer_list"]))
    if virtual := options.get("num_layers_per_virtual_pipeline_stage"):
        args["num_layers_per_virtual_pipeline_stage"] = virtual
        args["vpp_size"] = (layers + len(noop)) // case.pp // virtual
    if "schedules_method" in options:
        args["schedules_method"] = "dualpipev"
    if case.model_type in WITH_EXPERTS:
        args["num_experts"] = c.get("n_routed_experts") or c["num_experts"]
        args["moe_intermediate_size"] = c["moe_intermediate_size"]
        args["moe_grouped_gemm"] = options.get("moe_grouped_gemm", False)
        args["moe_tp_extend_ep"] = options.get("moe_tp_extend_ep", False)
    if case.model_type in WITH_LATENT_ATTENTION:
        args |= {name: c[name] for name in ("q_lora_rank", "kv_lora_rank", "v_head_dim", "n_shared_experts")}
        args |= {"qk_head_dim": c["qk_nope_head_dim"], "qk_pos_emb_head_dim": c["qk_rope_head_dim"]}
        args |= {"multi_latent_attention": True, "mla_mm_split": options.get("mla_mm_split", False)}
        args["first_k_dense_replace"] = options.get("first_k_dense_replace", c["first_k_dense_replace"])
    else:
        args["kv_channels"] = c.get("head_dim") or c["hidden_size"] // heads
    if case.mtp:
        args["mtp_num_layers"] = case.mtp
    return args
