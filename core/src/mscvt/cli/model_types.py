"""Model types as a user writes them: the plugin's name, `config.json`'s own, or nearly one of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mscvt.errors import MscvtError
from mscvt.errors.nearest import did_you_mean


def match_model_type(word: str, spellings: Mapping[str, Iterable[str]]) -> str | None:
    """The model type that a word means; None where it is not known, nor like one that is.

    Args:
        word: What `--model-type-hf` says.
        spellings: Model type -> what `config.json` may call it.

    Raises:
        MscvtError: Where the word is `config.json`'s name of several types, or like one that is known.
    """
    if word in spellings:
        return word
    named = sorted(name for name, said in spellings.items() if _plain(word) in map(_plain, (name, *said)))
    if len(named) == 1:
        return named[0]
    if named:
        raise MscvtError(
            f"--model-type-hf {word}: is config.json's name of {', '.join(named)}",
            hint="Choose one of these, or leave the option out: the whole config.json may tell which it is.",
        )
    question = did_you_mean(word, spellings)
    if question:
        raise MscvtError(
            f"unknown model type {word!r}; installed: {', '.join(sorted(spellings))}",
            hint=f"{question} `mscvt plugins` lists all that can be converted.",
        )
    return None


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
