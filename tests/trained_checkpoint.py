"""A small model with its Megatron checkpoint, to be edited into what a training run saves."""

from argparse import Namespace

import torch

from mscvt.dialects.options import Options
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry
from mscvt.testing import save_huggingface
from random_models import Case
from random_weights import weights
from reference_converter import expected_return
from test_properties import assert_same, read_huggingface

REGISTRY = load_registry()
TP, PP, EP = (f"target_{name}_parallel_size" for name in ("tensor", "pipeline", "expert"))


class Run:
    """A model, its Megatron checkpoint and the way back."""

    def __init__(self, folder, model_type, config, options):
        self.folder = folder
        self.case = Case(model_type, config, options)
        self.source = weights(self.case)
        self.hf = save_huggingface(folder / "hf", config, self.source, shards=2)
        self.mg, self.back = folder / "mg", folder / "back"
        request = Request(self.hf, Options(**options), model_type=model_type)
        run_conversion(prepare_to_megatron(request, REGISTRY), self.mg, Settings(workers=1))

    @property
    def shards(self):
        return sorted(self.mg.rglob("model_optim_rng.pt"))

    def edit(self, change, **args):
        """Save all shards again, changed, with `args` set."""
        for path in self.shards:
            with torch.serialization.safe_globals([Namespace]):
                state = torch.load(path, weights_only=True)
            for name, value in args.items():
                setattr(state["args"], name, value)
            change(state)
            torch.save(state, path)

    def convert(self, *, asked=Options(), **request):  # noqa: B008
        conversion = prepare_to_huggingface(Request(self.mg, asked, **request), REGISTRY)
        run_conversion(conversion, self.back, Settings(workers=1))

    def assert_returns_source(self, **request):
        self.convert(**request)
        assert_same(read_huggingface(self.back), expected_return(self.case, self.source))


def forget(*names):
    def change(state):
        for name in names:
            delattr(state["args"], name)

    return change


def nothing(_state):
    """For edits of `args` alone."""
