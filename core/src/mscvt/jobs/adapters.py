"""An adapter of PEFT beside the model that it is of: which weight each factor belongs to, in every form of experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.formats.peft.forms import Held, embedding, exchanged_expert, expert, plain
from mscvt.formats.peft.names import factor_names
from mscvt.formats.peft.reader import Adapter, Factors
from mscvt.model.lora import Lora
from mscvt.plan.by_huggingface import Use, uses_by_name
from mscvt.records import dataclass
from mscvt.tensors.adapted import AdaptedSource, LowRank
from mscvt.tensors.overlaid import overlaid
from mscvt.tensors.sources import NotedSource
from mscvt.tensors.views import View, ViewSource

_STACKED_SINCE = (0, 21)
"""The version of PEFT from which the factors of stacked experts are known to have A's columns as inputs; before, some
had them exchanged with B's rows."""
_HALF = {"moe.expert.gate": 0, "moe.expert.up": 1}


@dataclass(frozen=True, slots=True)
class Pair:
    """The factors of one weight."""

    a: View
    """`[rank, columns of the weight]`."""
    b: View
    """`[rows of the weight, rank]`."""
    scale: float

    @property
    def rank(self) -> int:
        """Their rank."""
        return self.a.shape[0]


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter whose factors have been found places in a model."""

    adapter: Adapter
    pairs: Mapping[str, Pair]
    """Weight -> its factors."""
    copies: Mapping[str, str]
    """Weight -> the tensor of the adapter that replaces it."""
    left_out: tuple[str, ...]
    """Modules of layers that are not converted."""

    def words(self, description: Description) -> int | None:
        """How many words the model has whose embedding the adapter replaces; None where it doesn't."""
        uses = uses_by_name(description)
        embeddings = [name for name, found in uses.items() if any(use.side.name == "embedding" for use in found)]
        return next((self.adapter.tensors[self.copies[n]].shape[0] for n in embeddings if n in self.copies), None)

    @property
    def dtype(self) -> str:
        """The dtype of the factors, or of most of them."""
        kinds = [info.dtype for name, info in self.adapter.tensors.items() if name not in self.adapter.copies.values()]
        return max(sorted(set(kinds)), key=kinds.count, default="BF16")

    def views(self, zeros: Mapping[str, View] | None = None, factor: Mapping[str, float] | None = None) -> ViewSource:
        """The factors under the names that an adapter with one pair for each weight has.

        Args:
            zeros: Further factors.
            factor: Weight -> what its B is multiplied with.
        """
        views = dict(zeros or {})
        for weight, pair in self.pairs.items():
            a, b = factor_names(weight)
            scale = (factor or {}).get(weight, 1.0)
            views |= {a: pair.a, b: View(pair.b.of, pair.b.shape, pair.b.strides, pair.b.offset, scale)}
        return ViewSource(self.adapter, views, self.dtype)

    def merged(self, source: NotedSource) -> AdaptedSource:
        """The model's weights with the adapter merged."""
        named = {tensor: weight for weight, tensor in self.copies.items()}
        base = overlaid((source, lambda name: name), (self.adapter, named.get))
        updates = {
            weight: LowRank(factor_names(weight)[1:], factor_names(weight)[:1], pair.rank, pair.scale)
            for weight, pair in self.pairs.items()
            if weight in base.tensors
        }
        return AdaptedSource(base, updates, self.views(), source.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found."""
        ranks = sorted({pair.rank for pair in self.pairs.values()})
        scales = sorted({pair.scale for pair in self.pairs.values()})
        said = [
            f"LoRA: factors of {len(self.pairs)} weights, r {', '.join(map(str, ranks))}, "
            f"scale {', '.join(f'{scale:g}' for scale in scales)}"
        ]
        if self.copies:
            said.append(f"LoRA: the adapter replaces {', '.join(sorted(self.copies))}")
        if self.left_out:
            said.append(f"LoRA: left out with their layers: {len(self.left_out)} modules, {self.left_out[0]} first")
        return tuple(said)


def fit_adapter(adapter: Adapter, description: Description, spellings: Mapping[str, str], lora: Lora) -> FittedAdapter:
    """Find the weight of each factor.

    Args:
        adapter: The adapter.
        description: The model.
        spellings: Name of a source tensor -> the one that the description has.
        lora: What was asked for.

    Raises:
        MscvtError: Where a factor belongs to no weight or doesn't fit it, or the settings contradict what is asked.
    """
    fit = _Fit(adapter, description, spellings)
    for module, factors in adapter.modules.items():
        fit.place(module, factors)
    for weight, tensor in adapter.copies.items():
        fit.copy(weight, tensor)
    config, faults = adapter.config, fit.faults
    for flag, asked, said in (
        ("--lora-r", lora.lora_r, config.rank),
        ("--lora-alpha", lora.lora_alpha, config.alpha),
    ):
        if asked is not None and asked != said:
            faults.add(f"{flag} {asked} contradicts the adapter, whose adapter_config.json says {said}")
    faults.raise_if_any(f"{adapter.folder}: the adapter is not one of this model")
    return FittedAdapter(adapter, fit.pairs, fit.copies, tuple(fit.left_out))


class _Fit:
    """Finds places for factors, and gathers what has none."""

    def __init__(self, adapter: Adapter, description: Description, spellings: Mapping[str, str]) -> None:
        self.adapter, self.description, self.spellings = adapter, description, spellings
        self.uses = uses_by_name(description)
        self.experts = _experts(self.uses)
        self.faults = Faults()
        self.pairs: dict[str, Pair] = {}
        self.copies: dict[str, str] = {}
        self.left_out: list[str] = []

    def held(self, factors: Factors) -> tuple[Held, Held]:
        a, b = (factors.names[which] for which in "AB")
        return Held(a, self.adapter.tensors[a].shape), Held(b, self.adapter.tensors[b].shape)

    def weight_of(self, name: str) -> str:
        """The name that the description has for a weight."""
        return name if name in self.uses else self.spellings.get(name, name)

    def is_left_out(self, weight: str) -> bool:
        return weight in self.description.left_out

    def place(self, module: str, factors: Factors) -> None:
        """Find the weight of a module's factors."""
        weight = self.weight_of(f"{module}.weight")
        if self.is_left_out(weight):
            self.left_out.append(module)
            return
        a, b = (self.adapter.tensors[factors.names[which]] for which in "AB")
        if len(a.shape) != 2 or len(b.shape) != 2:
            self.faults.add(f"{module} has factors of the shapes {list(a.shape)} and {list(b.shape)}, no matrices")
        elif weight in self.uses:
            if self.rank_agrees(module, module, a.shape[0]):
                views = (embedding if factors.is_embedding else plain)(*self.held(factors))
                self.add(weight, Pair(*views, self.adapter.config.scale_of(module)))
        elif weight in self.description.aliases:
            self.faults.add(
                f"{module} repeats {self.description.aliases[weight].of}, and an adapter can't change one of them alone"
            )
        elif found := self.stack_of(module):
            self.stacked(module, factors, *found)
        else:
            self.faults.add(f"{module} is no module of this model", hint=None if self.faults else self.meant(module))

    def meant(self, module: str) -> str:
        """What to do about an unknown module, which another one's name may end like."""
        tail = re.search(r"\w+\.\d+\..+", module)
        found = next((name for name in self.uses if tail and name.endswith(f".{tail[0]}.weight")), None)
        if found is None:
            return "Is the adapter one of this model?"
        return f"This model calls it {found.removesuffix('.weight')}: was the adapter trained on a model that wraps it?"

    def copy(self, name: str, tensor: str) -> None:
        """Take a tensor that replaces one of the model's."""
        weight = self.weight_of(name)
        if self.is_left_out(weight):
            self.left_out.append(name)
        elif weight in self.uses or weight in self.description.aliases:
            self.copies[weight] = tensor
        else:
            self.faults.add(f"{tensor} is no weight of this model", hint="Is the adapter one of this model?")

    def rank_agrees(self, module: str, key: str, rank: int) -> bool:
        said = self.adapter.config.rank_of(key)
        if rank != said:
            self.faults.add(f"{module} has factors of the rank {rank}, adapter_config.json says {said}")
        return rank == said

    def add(self, weight: str, pair: Pair) -> None:
        shape = self.uses[weight][0].side.shape
        rows, columns = shape if len(shape) == 2 else (0, 0)
        if (pair.a.shape, pair.b.shape) != ((pair.rank, columns), (rows, pair.rank)):
            self.faults.add(
                f"{weight} {list(shape)} does not fit its factors {list(pair.a.shape)} and {list(pair.b.shape)}"
            )
        self.pairs[weight] = pair

    def stack_of(self, module: str) -> tuple[str, int] | None:
        """The experts that a module stands for which lie in stacked parameters, and how deep it wraps them."""
        experts, inner = module, 0
        while experts.endswith(".base_layer"):
            experts, inner = experts.removesuffix(".base_layer"), inner + 1
        if not experts.endswith("experts"):
            return None
        layer = re.match(r".*?\.\d+\.", experts)
        here = [name for name in self.experts if name == experts]
        here = here or [name for name in self.experts if layer and name.startswith(layer[0])]
        if len(here) == 1:
            return here[0], inner
        if any(name.startswith(layer[0]) for name in self.description.left_out if layer):
            self.left_out.append(module)
        return None

    def stacked(self, module: str, factors: Factors, experts: str, inner: int) -> None:
        """Take apart the factors of a parameter that holds all experts: A `[E * r, in]`, B `[out, r * E]`."""
        a, b = (self.adapter.tensors[factors.names[which]].shape for which in "AB")
        parts = self.experts[experts]
        count = len(parts["moe.expert.down"])
        rank = a[0] // count
        down, up = (self.uses[parts[role][0]][0].side.shape for role in ("moe.expert.down", _up_role(parts)))
        outer = module.removesuffix(".base_layer" * inner)
        is_pair = inner or f"{outer}.base_layer" in self.adapter.modules
        both = {"down_proj": (down[0], down[1]), "gate_up_proj": (2 * down[1], down[0])}
        named = {name.rpartition(".")[2] for name in self.adapter.config.parameters}
        kinds = ["gate_up_proj" if inner else "down_proj"] if is_pair else [k for k in both if k in named or not named]
        fits = [
            (kind, is_exchanged)
            for kind in kinds
            for is_exchanged, (rows, columns) in enumerate((both[kind], both[kind][::-1]))
            if (rows, columns) == (b[0], a[1])
        ]
        if a[0] % count or b[1] != a[0] or not fits or up[1] != down[0]:
            self.faults.add(
                f"{module} has factors of the shapes {list(a)} and {list(b)}, which fit none of {count} experts' "
                f"parameters: {', '.join(f'{kind} {list(both[kind])}' for kind in kinds)}"
            )
            return
        if len(fits) > 1 and (len({kind for kind, _ in fits}) > 1 or self.adapter.config.version < _STACKED_SINCE):
            self.faults.add(
                f"{module}: inputs and outputs are equal in number, and PEFT before "
                f"{'.'.join(map(str, _STACKED_SINCE))} exchanged them in the factors of experts",
                hint="Load the adapter with the PEFT that trained it and merge it there.",
            )
            return
        kind, is_exchanged = fits[0]
        key = f"{outer}.{kind}"
        if not self.rank_agrees(module, key, rank):
            return
        scale = self.adapter.config.scale_of(key)
        wanted = ["moe.expert.down"] if kind == "down_proj" else [role for role in parts if role != "moe.expert.down"]
        for role in wanted:
            for number, weight in enumerate(parts[role]):
                first = _HALF.get(role, 0) * down[1]
                rows = self.uses[weight][0].side.shape[0]
                form = exchanged_expert if is_exchanged else expert
                self.add(weight, Pair(*form(*self.held(factors), number, rank, (first, rows)), scale))


def _up_role(parts: Mapping[str, object]) -> str:
    return "moe.expert.up" if "moe.expert.up" in parts else "moe.expert.gate_up"


def _experts(uses: Mapping[str, list[Use]]) -> dict[str, dict[str, list[str]]]:
    """What the names of a layer's experts begin with -> role -> their weights in order."""
    found: dict[str, dict[str, dict[int, str]]] = {}
    for weight, (use, *_) in uses.items():
        start, mark, _ = use.parameter.names[use.number].partition(".{expert}")
        if mark and use.side.name.startswith("moe.expert."):
            found.setdefault(start, {}).setdefault(use.side.name, {})[use.held[0]] = weight
    return {
        start: {role: [weights[number] for number in sorted(weights)] for role, weights in roles.items()}
        for start, roles in found.items()
    }
