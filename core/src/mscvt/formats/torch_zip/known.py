"""What names in a pickle stand for: the few that make plain values or tensors, and those that no checkpoint needs.

Every other name becomes a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.standins import Global, Recorded, Storage, StoredTensor
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES

if TYPE_CHECKING:
    from mscvt.formats.torch_zip.unpickler import Unpickler

STORAGES: Mapping[str, str] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
"""Classes of storages in `torch` and `torch.storage` -> safetensors' name of their elements' dtype."""
_DTYPES = {f"torch.{torch_name}": name for name, torch_name in TORCH_NAMES.items()}
_DIMENSIONS = 64
"""As many as a tensor of torch may have."""
_LARGEST = 1 << 63

_HARMFUL_MODULES = frozenset(
    {"os", "posix", "nt", "sys", "subprocess", "commands", "popen2", "pty", "shutil", "tempfile", "glob"}
    | {"socket", "ssl", "http", "urllib", "urllib2", "urllib3", "requests", "httpx", "aiohttp", "ftplib"}
    | {"smtplib", "telnetlib", "xmlrpc", "webbrowser", "ctypes", "_ctypes", "cffi", "importlib", "imp", "runpy"}
    | {"code", "codeop", "pickle", "_pickle", "cPickle", "marshal", "shelve", "dbm", "pip", "pdb", "bdb", "timeit"}
)
_HARMFUL = frozenset(
    {"operator.attrgetter", "operator.methodcaller"}
    | {f"{module}.{name}" for module in ("torch", "torch.serialization") for name in ("load", "save")}
    | {f"{module}.{name}" for module in ("io", "_io", "_pyio") for name in ("open", "open_code", "FileIO")}
    | {f"numpy.{name}" for name in ("load", "save", "savez", "savetxt", "loadtxt", "fromfile", "memmap")}
    | {f"builtins.{name}" for name in ("eval", "exec", "execfile", "compile", "open", "file", "input", "globals")}
    | {"builtins.__import__", "builtins.breakpoint"}
)


def is_harmful(name: Global) -> bool:
    """Whether a name could only be in a checkpoint to do harm. It would not be looked up either."""
    top = name.module.partition(".")[0]
    inside = name.module.startswith(("torch.hub", "torch.jit", "torch.utils.cpp_extension"))
    return top in _HARMFUL_MODULES or inside or str(name) in _HARMFUL


def _mapping(unpickler: Unpickler, pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        unpickler.set_item(made, key, value)
    return made


def _default_dict(unpickler: Unpickler, _factory: Any = None, pairs: Any = ()) -> dict[Any, Any]:
    return _mapping(unpickler, pairs)


def _set(unpickler: Unpickler, items: Any = ()) -> set[Any]:
    made: set[Any] = set()
    unpickler.add_items(made, items)
    return made


def _frozenset(unpickler: Unpickler, items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(unpickler, items))


def _bytes(_unpickler: Unpickler) -> bytes:
    return b""  # only empty ones are pickled by calling the class


def _encode(unpickler: Unpickler, text: str, codec: str) -> bytes:
    """How protocols 0 to 2 pickle bytes; other codecs could make one byte into many."""
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise MscvtError(f"its pickle calls _codecs.encode with {str(codec)[:40]!r}, expected latin1")
    unpickler.copied(len(text))
    return text.encode("latin1")


def _attribute(_unpickler: Unpickler, owner: Any, name: Any) -> Any:
    """How some versions of Python pickle the members of an enum."""
    if isinstance(owner, Global) and isinstance(name, str):
        return Global(owner.module, f"{owner.name}.{name}")
    return Recorded("builtins.getattr", (owner, name))


def _reconstructor(unpickler: Unpickler, kind: Any, _base: Any, _state: Any) -> Any:
    """How protocols 0 and 1 make an object."""
    return unpickler.make(kind, ())


def _new_object(unpickler: Unpickler, kind: Any, *arguments: Any) -> Any:
    return unpickler.make(kind, arguments)


def _new_object_with_names(unpickler: Unpickler, kind: Any, arguments: Any, _named: Any) -> Any:
    return unpickler.make(kind, arguments)


def _size(_unpickler: Unpickler, sizes: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple):
        raise MscvtError("its pickle has a size that is no tuple")
    return sizes


def _parameter(_unpickler: Unpickler, data: Any, *_rest: Any) -> Any:
    return data


def _of_type(unpickler: Unpickler, function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    """How subclasses of tensors are pickled: how to make the tensor, and its class."""
    return unpickler.make(function, arguments)


def _tensor(
    _unpickler: Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    strides: Any,
    _requires_grad: Any = False,
    _hooks: Any = None,
    metadata: Any = None,
) -> Any:
    kind = storage.kind if isinstance(storage, Storage) else "unknown"
    return _view(storage, STORAGES.get(kind), offset, size, strides, metadata, kind)


def _tensor_of_dtype(
    _unpickler: Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    strides: Any,
    _requires_grad: Any,
    _hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Any:
    return _view(storage, _DTYPES.get(str(dtype)), offset, size, strides, metadata, str(dtype)[:40])


def _npu_tensor(unpickler: Unpickler, *arguments: Any) -> Any:
    """A tensor saved from an NPU, whose bytes are those of a copy on the CPU.

    The last argument is the format on the device (`_reduce_ex` in torch_npu/utils/storage.py).
    """
    return _tensor(unpickler, *arguments[:-1])


def _view(storage: Any, dtype: str | None, offset: Any, size: Any, strides: Any, metadata: Any, said: str) -> Any:
    """A tensor, once its numbers fit its storage.

    Raises:
        MscvtError: Where they don't.
    """
    if not isinstance(storage, Storage) or dtype is None:
        return Recorded(f"a tensor of {said}")
    if metadata and (not isinstance(metadata, dict) or any(metadata.values())):
        return Recorded("a tensor that is conjugated or negated when it is read")
    record = storage.record.name[:100]
    if type(size) is not tuple or type(strides) is not tuple or len(size) != len(strides) or len(size) > _DIMENSIONS:
        raise MscvtError(f"a tensor in its record {record!a} has no shape and strides")
    for number in (offset, *size, *strides):
        if type(number) is not int or not 0 <= number < _LARGEST:
            raise MscvtError(f"a tensor in its record {record!a} has a shape or strides that are no whole numbers")
    needed = reach(dtype, offset, size, strides)
    if needed > storage.record.size:
        raise MscvtError(
            f"a tensor of shape {list(size)} needs {needed:,} bytes of its record {record!a}, "
            f"which has {storage.record.size:,}"
        )
    return StoredTensor(dtype, size, strides, storage.start + offset * ITEM_SIZES[dtype], storage)


def reach(dtype: str, offset: int, size: Sequence[int], strides: Sequence[int]) -> int:
    """Bytes from a storage's start to the end of the last element of a tensor in it; 0 where it has no elements."""
    if 0 in size:
        return 0
    last = offset + sum((extent - 1) * stride for extent, stride in zip(size, strides, strict=True))
    return (last + 1) * ITEM_SIZES[dtype]


KNOWN: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.frozenset": _frozenset,
    "builtins.getattr": _attribute,
    "builtins.set": _set,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_dict,
    "copyreg.__newobj__": _new_object,
    "copyreg.__newobj_ex__": _new_object_with_names,
    "copyreg._reconstructor": _reconstructor,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch_npu.utils.storage._rebuild_npu_tensor": _npu_tensor,
}
"""Full name -> what a call of it gives. The first argument is the unpickler, which counts what is made."""
