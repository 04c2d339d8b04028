"""Numbers as people read them."""

from __future__ import annotations


def size_text(nbytes: float) -> str:
    """Bytes, in the unit in which they are a short number.

    >>> size_text(999), size_text(1536), size_text(1.3e12)
    ('999 B', '1.5 kB', '1.3 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"


def count_text(number: int) -> str:
    """A number of parameters, as models are called by it.

    >>> count_text(480), count_text(7_615_616_512), count_text(671_026_419_200)
    ('480', '7.62 B', '671 B')
    """
    for factor, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)


def counted(number: int, what: str) -> str:
    """A number of things, in the plural where it is not one."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
