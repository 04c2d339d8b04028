"""Pages in Chinese say so: screen readers and the choice of glyphs go by it."""

from typing import Any

_ENGLISH, _CHINESE = '<html lang="en"', '<html lang="zh-CN"'


def on_post_page(output: str, page: Any, config: Any) -> str:  # noqa: ARG001  # the arguments are mkdocs'
    """Called by mkdocs for each page that it has made."""
    if not page.file.src_uri.startswith("zh/"):
        return output
    if _ENGLISH not in output:
        raise ValueError(f"{page.file.src_uri}: no {_ENGLISH} to replace")
    return output.replace(_ENGLISH, _CHINESE, 1)
