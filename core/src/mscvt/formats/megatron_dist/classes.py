"""The classes that a `.metadata` is made of; all that its reader knows, and what its writer uses.

Source: torch/distributed/checkpoint/metadata.py, filesystem.py and planner.py in PyTorch;
megatron/core/dist_checkpointing/strategies/torch.py up to 0.15.
"""

from __future__ import annotations

_METADATA = "torch.distributed.checkpoint.metadata"
_PLANNER = "torch.distributed.checkpoint.planner"
_STRATEGY = "megatron.core.dist_checkpointing.strategies.torch"

WRITTEN = f"{_METADATA}.Metadata"
WHOLE = frozenset({WRITTEN, f"{_STRATEGY}.MCoreMetadata"})
"""What the file holds."""
TENSOR = f"{_METADATA}.TensorStorageMetadata"
OBJECT = f"{_METADATA}.BytesStorageMetadata"
CHUNK = f"{_METADATA}.ChunkStorageMetadata"
PROPERTIES = f"{_METADATA}.TensorProperties"
INDEX = f"{_METADATA}.MetadataIndex"
PLACE = "torch.distributed.checkpoint.filesystem._StorageInfo"
MEMORY_FORMAT = f"{_METADATA}._MEM_FORMAT_ENCODING"
LAYOUT = "torch.serialization._get_layout"
SIZE = "torch.Size"
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32"),
    *("uint64", "bool", "complex32", "complex64", "complex128", "quint8", "qint8", "qint32"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
)
ALLOWED = (
    WHOLE
    | {TENSOR, OBJECT, CHUNK, PROPERTIES, INDEX, PLACE}
    | {f"{_METADATA}.StorageMeta", MEMORY_FORMAT, LAYOUT, SIZE}
    | {"torch.distributed.checkpoint.filesystem._StoragePrefix", f"{_STRATEGY}.MCoreSavePlan"}
    | {
        f"{_PLANNER}.{name}"
        for name in ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData")
    }
    | {"pathlib.PosixPath", "collections.OrderedDict"}
    | {f"torch.{name}" for name in _DTYPES}
)
"""Every name that a `.metadata` may hold."""
