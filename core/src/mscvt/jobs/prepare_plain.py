"""Planning a plain folder of `torch.distributed.checkpoint` -> Hugging Face, whose names it has already.

Training with FSDP2 saves such folders: global tensors under the names of transformers' modules, the optimizer beside.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.description.description import Description
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.huggingface_written import to_huggingface
from mscvt.jobs.plans import plan_same
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.jobs.whole_model import whole_model
from mscvt.plan.by_shard import ByShard
from mscvt.plugins.registry import Registry
from mscvt.tensors.renamed import renamed
from mscvt.tensors.sources import NotedSource

if TYPE_CHECKING:
    from mscvt.formats.megatron_dist.reader import GlobalSource

_BESIDES = re.compile(r"(?:optim|optimizer|optimizers|optim_state|lr_scheduler|scheduler|dataloader)(?:[._].*)?")
"""What stands beside the model in such a folder."""
_WRAPPINGS = ("", "model.", "module.", "model.module.", "state_dict.", "app.model.")
"""What may stand in front of all names, as programs wrap a model before they save it."""


def prepare_plain(folder: Path, request: Request, registry: Registry) -> Conversion:
    """Plan a plain folder -> Hugging Face.

    Raises:
        MscvtError: Where nothing says which model it is, or its tensors are not those of that model.
    """
    from mscvt.formats.megatron_dist.reader import GlobalSource

    if request.hf_cfg_dir is None:
        raise MscvtError(
            f"{folder}: is a plain folder of torch.distributed.checkpoint, which doesn't say what model it is of",
            hint="Give --hf-cfg-dir with the model's config.json.",
        )
    config = read_config(request.hf_cfg_dir)
    family = registry.family(request.model_type) if request.model_type else registry.recognise(config)
    original = GlobalSource(folder, lambda name: not _BESIDES.fullmatch(name))
    model = whole_model(family, request.hf_cfg_dir)
    less = whole_model(family, request.hf_cfg_dir, with_mtp=False)
    source = renamed(_unwrapped(original, less.description), family.model_type.spellings)
    if not source.tensors.keys() & (_names(model.description) - _names(less.description)):
        model = less  # public implementations have no MTP layers
    left_out = family.left_out(model.h)
    plan = plan_same(model.description, source.tensors, left_out=left_out, dtype=request.dtype_name)
    why = "recognised as a plain folder of torch.distributed.checkpoint, because it has .metadata and no metadata.json"
    return to_huggingface(request, model, plan, source, config, (why,), source_layout=False)


def _names(description: Description) -> set[str]:
    return set(ByShard(description).expected)


def _unwrapped(source: GlobalSource, description: Description) -> NotedSource:
    """A source without what stands in front of all of its names, which is what makes most of them the model's."""
    names = _names(description)
    best = max(_WRAPPINGS, key=lambda wrapping: sum(wrapping + name in source.tensors for name in names))
    return renamed(source, {name: name.removeprefix(best) for name in source.tensors if best and name.startswith(best)})
