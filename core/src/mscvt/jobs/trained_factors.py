"""The factors that a training run saved: found among its tensors, checked against what is recorded and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mscvt.description.factors import FactorBook
from mscvt.dialects.lora import LoraNames
from mscvt.errors import Faults, MscvtError
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.models import Model
from mscvt.jobs.request import Request
from mscvt.jobs.sources import has_factors, open_megatron, open_tensors
from mscvt.model.hyperparameters import shown_value
from mscvt.model.lora import Lora
from mscvt.parallel.grid import ShardName
from mscvt.plan.contents import Plan, shown
from mscvt.plan.factors import Found, find_factors, updates
from mscvt.records import dataclass
from mscvt.tensors.adapted import AdaptedSource, LowRank
from mscvt.tensors.laid_out import LaidOut, Plot
from mscvt.tensors.overlaid import Overlaid, overlaid

if TYPE_CHECKING:
    from pathlib import Path

    from mscvt.jobs.sources import MegatronCheckpoint


@dataclass(frozen=True)
class Trained:
    """Factors, and the weights beside them."""

    model: Model
    book: FactorBook
    found: Found
    alpha: float
    shards: Overlaid
    """Every tensor under the key that it has without PEFT's wrapping, and the factors."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found."""
        names = self.model.dialect.lora
        modules = sorted({names.target_module(one.weight.key) for one in self.found.factored})
        return (
            f"LoRA: factors of {len(self.found.factored)} Megatron weights ({', '.join(modules)}), "
            f"r {self.found.rank}, alpha {self.alpha:g}",
        )

    def merged(self) -> AdaptedSource:
        """The weights with their factors added, each shard with its own copies."""
        changes, plots = self._changes
        missing = sorted(shard for shard in changes if shard not in self.shards.tensors)
        if missing:
            raise MscvtError(
                f"{shown(missing[0])} is not there, only its factors, as for {len(missing) - 1} others",
                hint="Give the weights that were trained on with --load-dir and these factors with --lora-load, or "
                "write the factors alone with --save-lora-to-hf.",
            )
        is_factor = self.model.dialect.lora.is_factor
        base = replace(self.shards, tensors={n: i for n, i in self.shards.tensors.items() if not is_factor(n[2])})
        return AdaptedSource(base, changes, LaidOut(self.shards, plots) if plots else self.shards)

    @property
    def _changes(self) -> tuple[Mapping[ShardName, LowRank], Mapping[ShardName, Plot]]:
        return updates(self.model.description, self.book, self.found, self.alpha)

    def factors(self) -> Overlaid:
        """The factors alone."""
        names = {name: info for name, info in self.shards.tensors.items() if self.model.dialect.lora.is_factor(name[2])}
        return replace(self.shards, tensors=names)

    def compared(self, plan: Plan) -> Plan:
        """A plan that compares copies before anything is added to them, and the copies of their factors by name."""
        pairs: dict[tuple[ShardName, ShardName], int] = {}
        changes, _ = self._changes
        for kept, other, numel in plan.equal:
            for ours, theirs in zip(_factors(changes, kept), _factors(changes, other), strict=True):
                pairs[ours, theirs] = self.shards.tensors[ours].numel
            pairs[kept, other] = numel
        return replace(plan, equal=tuple((*pair, numel) for pair, numel in pairs.items()))


def _factors(changes: Mapping[ShardName, Any], shard: ShardName) -> tuple[ShardName, ...]:
    return (*changes[shard].left, *changes[shard].right) if shard in changes else ()


def read_trained(request: Request, model: Model, base: MegatronCheckpoint) -> Trained | None:
    """The factors of `--lora-load`, or of the source itself.

    Args:
        request: What was asked for.
        model: The model.
        base: The checkpoint of `--load-dir`, its ranks opened.

    Returns:
        The factors, or None where there are none and none were asked for.

    Raises:
        MscvtError: Where there should be some and are none, or they contradict what is recorded or was asked for.
    """
    lora, args, layers, dialect = request.lora, base.args, [base], model.dialect.lora
    if lora.lora_load is not None:
        layers.append(open_factors(lora.lora_load, model))
        args = layers[-1].args
    with_factors = [source for source in layers if has_factors(source, dialect)]
    if not with_factors:
        if lora.is_asked:
            where = layers[-1].folder
            raise MscvtError(
                f"{where}: has no factors, none of its keys speaks of LoRA",
                hint="Leave out the options of LoRA, or give the folder that the training saved with --lora-load.",
            )
        return None
    if len(with_factors) > 1:
        raise MscvtError(
            f"{with_factors[0].folder} and {with_factors[1].folder} both have factors",
            hint="Leave out --lora-load to take those of --load-dir, or merge them first and give the result.",
        )

    def plain_name(name: ShardName) -> ShardName:
        rank, chunk, key = name
        return rank, chunk, dialect.plain_key(key)

    shards = overlaid(*((source, plain_name) for source in layers))
    names = {name for name in shards.tensors if dialect.is_factor(name[2])}
    if mtp := sorted(name for name in names if name[2].startswith("mtp.")):
        raise MscvtError(f"{shown(mtp[0])}: training with LoRA has no MTP layers", hint="Report how it was trained.")
    book = FactorBook(dialect.factor_keys, factor_names, is_spread=dialect.IS_SPREAD)
    found = find_factors(model.description, book, dialect, shards.tensors, names)
    alpha = _checked(lora, args, found, dialect)
    return Trained(model, book, found, alpha, shards)


def open_factors(folder: Path, model: Model) -> MegatronCheckpoint:
    """Open the checkpoint of a training run with LoRA, which has the ranks of the model."""
    source = open_megatron(folder)
    open_tensors(source, model)
    return source


def _checked(lora: Lora, args: Mapping[str, Any], found: Found, dialect: LoraNames) -> float:
    """The alpha of factors, after everything that is said of them was compared with what they are."""
    faults = Faults()
    others = {rank: weight for weight, rank in found.ranks.items() if rank != found.rank}
    for rank, weight in others.items() if dialect.HAS_ONE_RANK else ():
        faults.add(f"the factors of {weight.key} have the rank {rank}, others {found.rank}")
    ranks: dict[str, Any] = {"--lora-r": lora.lora_r, "lora_r in the checkpoint's args,": args.get("lora_r")}
    for said, rank in ranks.items():
        if rank is not None and rank != found.rank:
            faults.add(
                f"{said} {shown_value(rank)} contradicts the shapes of the factors, which have the rank {found.rank}",
                hint="Leave out --lora-r: shapes say it.",
            )
    recorded = args.get("lora_alpha")
    if recorded is not None and (isinstance(recorded, bool) or not isinstance(recorded, (int, float))):
        faults.add(f"the checkpoint's args record lora_alpha = {shown_value(recorded)}, expected a number")
        recorded = None
    if None not in (recorded, lora.lora_alpha) and recorded != lora.lora_alpha:
        faults.add(
            f"--lora-alpha {lora.lora_alpha} contradicts the checkpoint, whose args record {recorded}",
            hint="Leave the option out: what args record is the default.",
        )
    alpha: float | None = lora.lora_alpha if recorded is None else recorded
    if alpha is None:
        faults.add(
            "the checkpoint's args don't record lora_alpha, and nothing else says it",
            hint=f"--lora-alpha N says it; {dialect.ALPHA_STANDS_IN}.",
        )
    _check_targets(lora, args, found, dialect, faults)
    faults.raise_if_any("the factors and what is said of them contradict each other")
    return float(alpha or 0)


def _check_targets(lora: Lora, args: Mapping[str, Any], found: Found, dialect: LoraNames, faults: Faults) -> None:
    """Compare `--lora-target-modules` with what args record, or else with the modules that have factors."""
    if lora.lora_target_modules is None:
        return
    asked, recorded = set(lora.lora_target_modules), args.get("lora_target_modules")
    keys = [one.weight.key for one in found.factored]
    there = {dialect.target_module(key) for key in keys if not dialect.is_grouped(key)}
    always = {dialect.target_module(key) for key in keys if dialect.is_grouped(key)}
    if isinstance(recorded, (list, tuple)) and recorded and asked != set(recorded):
        said = f"the checkpoint, whose args record {' '.join(sorted(map(str, recorded)))}"
    elif not there <= asked or not asked <= there | always:
        said = f"the factors, which are those of {' '.join(sorted(there | always))}"
    else:
        return
    faults.add(
        f"--lora-target-modules {' '.join(sorted(asked))} contradicts {said}",
        hint="Leave out --lora-target-modules: the factors say it.",
    )
