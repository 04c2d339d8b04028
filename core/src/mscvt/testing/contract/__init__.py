"""The tests that every family must pass; a plugin's suite inherits them.

The source checkpoints are made from the family's own description, so a wrong name or a wrong shape is wrong on both
sides there. The tests of `real` compare with what the model's own class writes and computes.
"""

from mscvt.testing.contract.converted import ConversionTests
from mscvt.testing.contract.described import DescriptionTests
from mscvt.testing.contract.real_class import RealClassTests
from mscvt.testing.contract.refusals import RefusalTests


class FamilyContract(DescriptionTests, ConversionTests, RealClassTests, RefusalTests):
    """Inherit it as `class TestMine(FamilyContract)`, with these attributes.

    Attributes:
        model_type: The value of `--model-type-hf`.
        config: A small `config.json` as transformers 5 writes it: four decoder layers, two MTP layers if
            the family can have as many; kv groups, FFN sizes and vocabulary divisible by 2, experts by 4; sizes
            otherwise different from each other, so that no two axes can be confused.
        real: The model's configuration class and its class for causal language modeling, which the names, shapes and
            logits are compared with; None where transformers has no such classes.
        conventions: Arithmetic of the real class that no `config.json` says: `mscvt.testing.Conventions`, with
            `norm_offset`, `scales_embedding`, `router` (`softmax`, `sigmoid`, ...), `indexer_rope_interleave`.
        blocks: The first word of roles -> a function that computes such a block, for roles of the family's own, or in
            place of the core's function.
        not_computed: Why the logits can't be computed from the roles, where neither helps; swapped names that fit are
            not noticed then, and want a test of their own.
        renamed_fields: Fields of `config` that transformers 4 calls by another name; `dtype` and
            `rope_parameters` need not be listed.
        not_saved: Hyperparameters of the family's own fields that the real class never saves: what only other versions
            of its configuration say.
        whole: Keys of matrices in the family's own rules that every tensor parallel rank holds all of, on purpose.
        differs: Keys of the family's own rules that do something else, on purpose, than the core's rules for the same
            roles: another key, other places or cuts.
        cases: The standard cases (`mscvt.testing.variants`) to convert under: all that mean something to
            the layers of `config`, unless a variant of a configuration is content with a few.
        options: Further parallel options to convert under, by the name of the case.
    """
