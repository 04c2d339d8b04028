"""A forward pass in plain torch, written from roles: what a model computes if a table of names is right.

Tensors of equal shape can be swapped in a table of names, and every conversion still gives back every byte. Logits
can't be deceived so: the model's own class and this forward pass, which knows tensors by their roles alone, must agree.

    reference = random_reference(config, folder)
    ends = tensors_by_role(names_of_ends, reference.tensors)
    layers = [tensors_by_role(names, reference.tensors, layer) for layer, names in enumerate(names_of_layers)]
    logits = forward(ends, layers, reference.config, reference.tokens)
    assert disagreement(logits, reference.logits) < TOLERANCE

It is written for small models on a CPU: float32, every expert computed for every token, nothing cached.
"""

from mscvt.testing.forward.attention import grouped_attention
from mscvt.testing.forward.decoder import forward
from mscvt.testing.forward.linear import normalized, projected
from mscvt.testing.forward.model import Block, Conventions, Model
from mscvt.testing.forward.reference import TOLERANCE, Real, Reference, disagreement, logits_of, random_reference
from mscvt.testing.forward.roles import Roles, tensors_by_role

__all__ = [
    "TOLERANCE",
    "Block",
    "Conventions",
    "Model",
    "Real",
    "Reference",
    "Roles",
    "disagreement",
    "forward",
    "grouped_attention",
    "logits_of",
    "normalized",
    "projected",
    "random_reference",
    "tensors_by_role",
]
