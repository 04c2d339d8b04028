"""What a plugin's own tests are made of: checkpoints from shapes, and a contract to inherit.

    from mscvt.testing import FamilyContract

    class TestMine(FamilyContract):
        model_type = "mine"
        config = {...}

`FamilyContract` needs pytest, the rest does not.
"""

from mscvt.testing.checkpoints import content, digest, save_huggingface
from mscvt.testing.sources import shapes_in, source_shapes, source_tensors

__all__ = [
    "FamilyContract",
    "content",
    "digest",
    "save_huggingface",
    "shapes_in",
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
