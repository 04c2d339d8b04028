"""The text of `--pipeline-model-parallel-layout`: what each virtual stage holds.

`E` embedding, `t` decoder layer, `m` MTP layer, `L` loss, `|` between stages; commas mean nothing, `x*n` and `(...)*n`
repeat. Source: megatron/core/transformer/pipeline_parallel_layer_layout.py.
"""

from __future__ import annotations

import re

from mscvt.errors import MscvtError, shown

_GROUP = re.compile(r"\(([^()]*)\)\*([0-9]{1,4})")
_LETTER = re.compile(r"([EtmL|])\*([0-9]{1,4})")
_MOST = 1 << 16
"""More letters than any model has layers and stages."""


def stages_of(text: str) -> list[str]:
    """The letters of each virtual stage; stage s is chunk s // PP of rank s % PP.

    >>> stages_of("Et*2|(t|)*2mL")
    ['Ett', 't', 't', 'mL']

    Raises:
        MscvtError: Where the text is no layout.
    """
    spelt = text.replace(",", "").replace(" ", "")
    for pattern in (_GROUP, _LETTER):
        spelt = pattern.sub(_repeated, spelt[:_MOST])
    if len(spelt) > _MOST or not set(spelt) <= set("EtmL|"):
        raise MscvtError(
            f"--pipeline-model-parallel-layout {shown(text)}: can't be understood",
            hint="Write it in the letters E, t, m, L and |, such as 'Et*3|(tt|)*6tmL'.",
        )
    return spelt.split("|")


def _repeated(match: re.Match[str]) -> str:
    letters, times = match[1], int(match[2])
    return letters * times if len(letters) * times <= _MOST else "?"
