"""Tests of conversions of a family: exact both ways."""

from __future__ import annotations

from pathlib import Path

import torch

from mscvt.dialects.options import Options
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.verify import verify_checkpoints
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.testing.checkpoints import save_huggingface
from mscvt.testing.contract.base import Contract
from mscvt.testing.conversions import content_of, contents_in, hf2mg, mg2hf
from mscvt.testing.sources import (
    mtp_layers,
    sizes_of,
)


class ConversionTests(Contract):
    """Every byte comes back, in every option."""

    def test_conversion_gives_back_every_byte_without_flags(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], variant: Options, tmp_path: Path
    ) -> None:
        """The checkpoint's args say all that the way back has to know."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.config, tensors, shards=2)
        there = hf2mg(hf, mg, variant, registry=registry)
        mg2hf(mg, back, registry=registry)
        is_whole = variant.num_layers is None and (variant.mtp_num_layers or 0) == mtp_layers(family, self.config)
        left_out = there.plan.left_out
        assert is_whole != bool(left_out)
        if is_whole:
            assert verify_checkpoints(hf=hf, mg=mg, registry=registry).is_equal
        expected = {name: content_of(tensor) for name, tensor in tensors.items() if name not in left_out}
        assert contents_in(back) == expected

    def test_config_beside_the_way_back_reads_as_the_source(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """The copied configuration says the same sizes, though it is of the older generation."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.older_config(), tensors)
        hf2mg(hf, mg, Options(mtp_num_layers=mtp_layers(family, self.config)), registry=registry)
        mg2hf(mg, back, hf_cfg_dir=hf, registry=registry)
        written = read_config(back)
        assert registry.recognise(written).model_type.config_model_types == family.model_type.config_model_types
        assert sizes_of(family, written) == sizes_of(family, self.config)
