"""What a plugin's own tests are made of: checkpoints from shapes, and a contract to inherit.

    from mscvt.testing import FamilyContract

    class TestMine(FamilyContract):
        model_type = "mine"
        config = {...}

`FamilyContract` needs pytest, the rest does not.
"""

from mscvt.dialects.options import Options
from mscvt.dialects.registry import load_registry
from mscvt.testing.checkpoints import content, digest, save_huggingface
from mscvt.testing.conversions import contents_in, hf2mg, mg2hf, shards_in
from mscvt.testing.forward import Conventions, logits_of, random_reference
from mscvt.testing.sources import layers_of, shapes_in, source_shapes, source_tensors

__all__ = [
    "Conventions",
    "FamilyContract",
    "Options",
    "content",
    "contents_in",
    "digest",
    "hf2mg",
    "layers_of",
    "load_registry",
    "logits_of",
    "mg2hf",
    "random_reference",
    "save_huggingface",
    "shapes_in",
    "shards_in",
    "source_shapes",
    "source_tensors",
]

try:
    import pytest
except ModuleNotFoundError:
    pass
else:
    pytest.register_assert_rewrite("mscvt.testing.contract")  # or a failed comparison would show nothing

    from mscvt.testing.contract import FamilyContract
