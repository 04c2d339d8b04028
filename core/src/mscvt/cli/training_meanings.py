"""What each option is for that the training script must be given."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mscvt.dialects.options import Options
from mscvt.model.options import flag, rows

FAMILYS = "of this family of models, as config.json says"
"""What is said of an option that the table doesn't know."""
_OF_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "--load": "The folder of the checkpoint.",
        "--spec": "The modules that this model is built of.",
        "--num-layers": "Layers of the whole pipeline, noop layers counted.",
        "--hidden-size": "Width of the model.",
        "--ffn-hidden-size": "Width inside of a dense MLP.",
        "--seq-length": "Tokens of a sequence; shorter ones may be trained.",
        "--max-position-embeddings": "The longest sequence that positions are known for.",
        "--normalization": "Kind of the norms.",
        "--norm-epsilon": "What is added under the root of a norm.",
        "--add-rmsnorm-offset": "Norms multiply by one more than their weight.",
        "--qk-layernorm": "Queries and keys have norms; without it their weights are not loaded.",
        "--num-attention-heads": "Heads of the queries.",
        "--group-query-attention": "Several query heads share a key and a value head.",
        "--num-query-groups": "Key and value heads.",
        "--kv-channels": "Width of a head.",
        "--add-qkv-bias": "The projections of q, k and v have a bias.",
        "--add-dense-bias": "The projection behind attention has a bias.",
        "--add-output-layer-bias": "The output layer has a bias.",
        "--disable-bias-linear": "Other matrices have no bias.",
        "--swiglu": "MLPs have a gate beside their up projection.",
        "--squared-relu": "The activation of MLPs.",
        "--position-embedding-type": "How positions are told.",
        "--rotary-base": "Base of the rotary embeddings; another one spoils attention without an error.",
        "--rotary-percent": "How much of a head is rotated.",
        "--partial-rotary-factor": "How much of a head is rotated.",
        "--rope-scaling-type": "How rotary embeddings reach longer sequences; other options give its numbers.",
        "--rotary-scaling-factor": "How far beyond their length rotary embeddings reach.",
        "--mscale": "Scale of rotary embeddings that reach further.",
        "--mscale-all-dim": "Scale of attention with rotary embeddings that reach further.",
        "--multi-latent-attention": "Attention keeps a compressed key and value.",
        "--q-lora-rank": "Width of the compressed query.",
        "--kv-lora-rank": "Width of the compressed key and value.",
        "--qk-head-dim": "Width of the part of a head that is not rotated.",
        "--qk-pos-emb-head-dim": "Width of the part of a head that is rotated.",
        "--v-head-dim": "Width of a value head.",
        "--enable-dsa-indexer": "An indexer chooses the tokens that are attended to.",
        "--index-n-heads": "Heads of the indexer.",
        "--index-head-dim": "Width of a head of the indexer.",
        "--index-topk": "Tokens that the indexer chooses.",
        "--num-experts": "Experts of a layer.",
        "--moe-ffn-hidden-size": "Width inside of an expert.",
        "--moe-layer-freq": "Which layers have experts.",
        "--first-k-dense-replace": "The first layers have a dense MLP.",
        "--n-shared-experts": "Experts that every token goes to.",
        "--moe-shared-expert-intermediate-size": "Width inside of the shared experts.",
        "--shared-expert-gate": "The shared experts have a gate.",
        "--moe-router-topk": "Experts that a token goes to.",
        "--moe-router-enable-expert-bias": "The router has a bias that balances experts.",
        "--moe-router-num-groups": "Groups of experts, of which the router chooses some first.",
        "--moe-router-group-topk": "Groups that are chosen.",
        "--moe-router-score-function": "How the router's scores become weights.",
        "--moe-router-pre-softmax": "Experts are weighed by the softmax of all scores, not of the chosen ones.",
        "--moe-router-topk-scaling-factor": "What the weights of experts are multiplied by.",
        "--norm-topk-prob": "The weights of the chosen experts are made to sum to one.",
        "--padded-vocab-size": "Rows of the embedding, padding counted.",
        "--make-vocab-size-divisible-by": "So that training pads the vocabulary as the checkpoint is.",
        "--untie-embeddings-and-output-weights": "The output layer has weights of its own.",
    }
)
_RECORDED = {flag(row.recorded[0]): row.help for row in rows(Options).values() if row.recorded}
MEANINGS: Mapping[str, str] = MappingProxyType({**_RECORDED, **_OF_MODELS})
"""Option of the training script -> what it is for."""
