"""What a plugin's own tests are made of: checkpoints from shapes, and a contract to inherit.

from mscvt.testing import FamilyContract

class TestMine(FamilyContract):
    model_type = "mine"
    config = {...}
"""

from mscvt.testing.checkpoints import content, digest, save_huggingface
from mscvt.testing.contract import FamilyContract

__all__ = ["FamilyContract", "content", "digest", "save_huggingface"]
