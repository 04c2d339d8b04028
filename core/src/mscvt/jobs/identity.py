"""What a conversion reads, and everything that its output depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mscvt import __version__
from mscvt.jobs.request import Request
from mscvt.output.identity import source_identity
from mscvt.plugins.family import Family


def folders_of(request: Request) -> tuple[Path, ...]:
    """The folders that are read."""
    folders = request.load_dir, request.hf_cfg_dir, request.lora.lora_load
    return tuple(folder for folder in folders if folder is not None)


def identity_of(
    direction: str,
    request: Request,
    family: Family,
    files: Sequence[Path],
    options: Any,
    config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the output's bytes depend on: the source as it is now, and all that was asked for.

    Args:
        direction: From what to what.
        request: What was asked for.
        family: The family.
        files: Every file that is read.
        options: The dialect's options, with defaults.
        config: The configuration that was read, or None.
    """
    configuration = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return {
        "direction": direction,
        "mscvt": __version__,
        "plugin": f"{family.plugin.distribution} {family.plugin.version}",
        "model type": family.model_type.name,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "given": dict(request.given),
        "dtype": request.dtype,
        "dequantize": request.dequantize,
        "replicas": request.replicas,
        "lora": {name: str(value) for name, value in asdict(request.lora).items() if value is not None},
        "configuration": configuration,
        "source": source_identity(request.load_dir, files),
    }
