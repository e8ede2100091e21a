"""The closed table: the only calls of a pickle that give a value rather than a record,
each written out here.

Names are exact. Every entry checks its arguments and raises Unsupported when they are not
what torch, Python or numpy themselves write; none of them can reach code, and those
that copy say how much.
"""

from __future__ import annotations

import datetime
import math
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import BY_TORCH_NAME, DTYPES, of_numpy
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.unpickler import Builder, Unpickler, Unsupported
from checkpoint_release.tensors.tensor import (
    MappedFile,
    Storage,
    Tensor,
    contiguous_strides,
)

ALLOWED_GLOBALS = re.compile(
    r"torch\.((cuda\.)?\w*Storage|storage\._?UntypedStorage|Size|Tensor|device|nn\.parameter\.Parameter"
    r"|(bool|bfloat16|b?complex\d+|u?int\d+|float\d+\w*|strided|sparse_\w+|contiguous_format|channels_last\w*)"
    r"|_utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)|serialization\._get_layout"
    r"|(_tensor|tensor)\._rebuild_from_type(_v2)?|torch_version\.TorchVersion)"
    r"|collections\.(OrderedDict|defaultdict|Counter|deque)|_codecs\.encode|copyreg\.__newobj__"
    r"|builtins\.(set|frozenset|list|dict|tuple|bytearray|bytes|complex|int|float|str|bool|object)"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path|datetime\.(date|time|datetime|timezone|timedelta)"
)
"""The names that are not reported as left out: they came out as what they mean."""

# loads the codec now: reading a file must import nothing
b"-\0\0\0".decode("utf-32-le")

MAX_TEXT = 1 << 16  # bytes of a numpy string
MAX_DIMENSIONS = 64  # torch's own limit
# a file's tensors may claim this many times its size: views, ties and expanded tensors
# repeat bytes
MAX_CLAIM = 64


class Tensors:
    """Makes Tensor records for one file, and keeps account of what they claim.

    Args:
        file_size: size of the checkpoint, in bytes.
    """

    def __init__(self, file_size: int) -> None:
        self._left = (1 << 30) + MAX_CLAIM * file_size

    def builders(self) -> dict[str, Builder]:
        """Every builder by its dotted name, torch's rebuilding functions bound to this file."""
        rebuild: dict[str, Builder] = {
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._rebuild_tensor_v3,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
            "torch.nn.parameter.Parameter": _rebuild_parameter,
            "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
            "torch._tensor._rebuild_from_type": _rebuild_from_type,
            "torch.tensor._rebuild_from_type": _rebuild_from_type,
        }
        return rebuild | _BUILDERS

    def tensor(
        self,
        base: Tensor,
        dtype: str,
        offset: Any,
        shape: Any,
        strides: Any,
        metadata: Any = None,
    ) -> Tensor | Inert:
        """A strided look at a storage, checked to lie within it."""
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise ValueError(
                f"a tensor has {len(shape)} sizes and {len(strides)} strides"
            )
        for number in (offset, *shape, *strides):
            if type(number) is not int or not 0 <= number < 1 << 62:
                raise ValueError(
                    "a tensor's shape, strides or offset are not what torch writes"
                )
        width = DTYPES[dtype].bits // 8
        skipped = base.offset * DTYPES[base.dtype].bits // 8
        if skipped % width:
            raise ValueError("a view of a storage begins within an element")
        size = math.prod(shape)
        last = (
            offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
            if size
            else -1
        )
        available = min(
            base.storage.nbytes, skipped + base.shape[0] * DTYPES[base.dtype].bits // 8
        )
        if skipped + (last + 1) * width > available:
            raise ValueError(
                f"a tensor of shape {shape}, strides {strides} and offset {offset}"
                f" reaches {(last + 1) * width} bytes into a storage of"
                f" {available - skipped}"
            )
        self._left -= size * width
        if self._left < 0:
            raise ValueError(
                f"its tensors claim more than {MAX_CLAIM} times the size of the file"
            )
        flags = metadata if type(metadata) is dict else {}
        return Tensor(
            dtype, tuple(shape), tuple(strides), offset + skipped // width, base.storage,
            conjugate=bool(flags.get("conj")), negate=bool(flags.get("neg")),
        )  # fmt: skip

    def _rebuild_tensor(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        return self._rebuild_tensor_v2(
            unpickler, (*args, False, None) if len(args) == 4 else ()
        )

    def _rebuild_tensor_v2(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if len(args) not in (6, 7):
            raise Unsupported
        base, offset, shape, strides = args[:4]
        _check_base(base, shape, strides)
        return self.tensor(base, base.dtype, offset, shape, strides, *args[6:])

    def _rebuild_tensor_v3(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if len(args) not in (7, 8):
            raise Unsupported
        base, offset, shape, strides = args[:4]
        _check_base(base, shape, strides)
        if not isinstance(args[6], Inert) or not args[6].name.startswith("torch."):
            raise Unsupported
        dtype = args[6].name.removeprefix("torch.")
        if dtype not in BY_TORCH_NAME:
            raise Unsupported(
                f"a tensor of dtype {dtype}, which this pipeline can't carry"
            )
        return self.tensor(
            base, BY_TORCH_NAME[dtype].name, offset, shape, strides, *args[7:]
        )


def array_of(record: Inert) -> Tensor | None:
    """The tensor for the record of a numpy array, or None where it holds something
    other than plain numbers.

    Arrays are pickled as `_reconstruct` with the state (version, shape, dtype, fortran
    order, bytes), since protocol 5 also as `_frombuffer(bytes, dtype, shape, order)`.
    """
    try:
        if record.name.endswith("._reconstruct"):
            _, shape, dtype, fortran, data = record.state
        else:
            data, dtype, shape, order = record.args or ()
            fortran = order == "F"
        numpy_dtype = _numpy_dtype(dtype)
        name = of_numpy(numpy_dtype.newbyteorder("<")).name
    except (TypeError, ValueError, Unsupported):
        return None
    if type(data) is str:
        data = data.encode()  # a Python 2 string that happened to be UTF-8
    if (
        type(data) is not bytes
        or type(shape) is not tuple
        or len(shape) > MAX_DIMENSIONS
    ):
        return None
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(
        shape
    ) * numpy_dtype.itemsize != len(data):
        return None
    strides = contiguous_strides(shape)
    if fortran:
        strides = tuple(reversed(contiguous_strides(shape[::-1])))
    storage = Storage(
        f"array {id(record):#x}",
        MappedFile(memoryview(data)),
        0,
        len(data),
        numpy_dtype.byteorder == ">",
    )
    return Tensor(name, shape, strides, 0, storage)


def is_array(record: Inert) -> bool:
    """Whether a record stands for a numpy array."""
    return record.args is not None and record.name in _ARRAYS


_ARRAYS = {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "numeric._frombuffer")
}


def _check_base(base: Any, shape: Any, strides: Any) -> None:
    if isinstance(base, Inert):
        raise Unsupported(base.reason)
    if (
        not isinstance(base, Tensor)
        or type(shape) is not tuple
        or type(strides) is not tuple
    ):
        raise Unsupported
    if len(base.shape) != 1:
        raise Unsupported


def _rebuild_parameter(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    if not args or not isinstance(args[0], Tensor):
        raise Unsupported(args[0].reason if args and isinstance(args[0], Inert) else "")
    return args[0]


def _rebuild_from_type(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    if (
        len(args) != 4
        or not isinstance(args[0], Inert)
        or "_rebuild_from_type" in args[0].name
    ):
        raise Unsupported
    made = unpickler.call(args[0], args[2])
    if not isinstance(made, Tensor):
        raise Unsupported(made.reason if isinstance(made, Inert) else "")
    return made


def _not_dense(kind: str) -> Builder:
    def refuse(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        raise Unsupported(f"a {kind} tensor, which safetensors can't hold")

    return refuse


# Containers. What a constructor would copy is handed on as it is, since nobody else
# holds it in an honest file.


def _ordered_dict(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case ():
            return {}
        case (dict() as entries,):
            return entries
        case (list() as pairs,):  # as Python 2 wrote them
            unpickler.charge(128 * len(pairs))
            if not all(
                isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
            ):
                raise Unsupported
            for key, _ in pairs:
                unpickler.check_key(key)
            return dict(pairs)
    raise Unsupported


def _default_dict(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    return _ordered_dict(unpickler, args[1:])


def _list(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case () | ((), *_):
            return []
        case (list() as items, *_):
            return items
    raise Unsupported


def _tuple(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case ():
            return ()
        case (tuple() as items,):
            return items
        case (list() as items,):
            unpickler.charge(64 + 8 * len(items))
            return tuple(items)
    raise Unsupported


def _new_object(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    if (
        not args
        or not isinstance(args[0], Inert)
        or args[0].name == "copyreg.__newobj__"
    ):
        raise Unsupported
    return unpickler.call(args[0], args[1:])


# Bytes, numbers, text.


def _encode(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case (str() as text, "latin1" | "latin-1"):
            unpickler.charge(len(text))
            return text.encode("latin-1")
    raise Unsupported


def _bytes(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str(), "latin1" | "latin-1"):
            return _encode(unpickler, args)
    raise Unsupported


def _one_of(*kinds: type) -> Builder:
    def same(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if len(args) != 1 or type(args[0]) not in kinds:
            raise Unsupported
        return args[0]

    return same


def _complex(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case (int() | float() as real, int() | float() as imaginary):
            return complex(real, imaginary)
    raise Unsupported


def _path(flavour: type[PurePosixPath] | type[PureWindowsPath]) -> Builder:
    def join(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if not all(type(part) is str for part in args):
            raise Unsupported
        unpickler.charge(8 * sum(map(len, args)) + 512)
        return str(flavour(*args))

    return join


def _device(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    match args:
        case (str() as kind,):
            return kind
        case (str() as kind, int() as index):
            return f"{kind[:100]}:{index}"
    raise Unsupported


# Numpy and dates.


def _numpy_dtype(record: Any) -> np.dtype[Any]:
    """The numpy type of plain numbers that a record of `numpy.dtype(code, align, copy)`
    and its state mean.
    """
    if not isinstance(record, Inert) or not record.args:
        raise Unsupported
    if record.name != "numpy.dtype":
        raise Unsupported
    code = record.args[0]
    if type(code) is not str or not re.fullmatch(
        r"[<>|=]?(b1|i[1248]|u[1248]|f[248]|c8|c16)", code
    ):
        raise Unsupported
    state = (
        record.state
        if isinstance(record.state, tuple) and len(record.state) > 1
        else (3, "|")
    )
    big = state[1] == ">" or code[0] == ">"
    return np.dtype(code.lstrip("<>|=")).newbyteorder(">" if big else "<")


def _scalar(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    if len(args) != 2:
        raise Unsupported
    data = args[1].encode() if type(args[1]) is str else args[1]
    match args[0]:
        case Inert(
            name="numpy.dtype", args=(str() as code, *_), state=(_, "<", *_)
        ) if code[:1] == "U":
            if type(data) is not bytes or len(data) > MAX_TEXT:
                raise Unsupported
            return data.decode("utf-32-le").rstrip("\0")
    dtype = _numpy_dtype(args[0])
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise Unsupported
    return np.frombuffer(data, dtype)[0].item()


def _date(
    kind: type[datetime.datetime] | type[datetime.date] | type[datetime.time],
) -> Builder:
    def decode(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if not args or type(args[0]) is not bytes or len(args[0]) not in (4, 6, 10):
            raise Unsupported
        zone = [_time_zone(part) for part in args[1:2]]
        try:
            return kind(args[0], *zone).isoformat()  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise Unsupported from None

    return decode


def _time_zone(record: Any) -> datetime.timezone:
    match record:
        case Inert(
            name="datetime.timezone",
            args=(Inert(name="datetime.timedelta", args=(days, seconds, micro)), *_),
        ):
            try:
                return datetime.timezone(datetime.timedelta(days, seconds, micro))
            except (TypeError, ValueError, OverflowError):
                raise Unsupported from None
    raise Unsupported


_BUILDERS: dict[str, Builder] = {
    "_codecs.encode": _encode,
    "builtins.bool": _one_of(bool),
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.dict": _ordered_dict,
    "builtins.float": _one_of(float),
    "builtins.frozenset": _tuple,
    "builtins.int": _one_of(int),
    "builtins.list": _list,
    "builtins.set": _list,
    "builtins.str": _one_of(str),
    "builtins.tuple": _tuple,
    "collections.Counter": _ordered_dict,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _list,
    "copyreg.__newobj__": _new_object,
    "datetime.date": _date(datetime.date),
    "datetime.datetime": _date(datetime.datetime),
    "datetime.time": _date(datetime.time),
    "decimal.Decimal": _one_of(str),
    "fractions.Fraction": _one_of(str),
    "torch.Size": _tuple,
    "torch.device": _device,
    "torch.torch_version.TorchVersion": _one_of(str),
    "torch._utils._rebuild_meta_tensor_no_storage": _not_dense("meta"),
    "torch._utils._rebuild_nested_tensor": _not_dense("nested"),
    "torch._utils._rebuild_qtensor": _not_dense("quantized"),
    "torch._utils._rebuild_sparse_csr_tensor": _not_dense("sparse"),
    "torch._utils._rebuild_sparse_tensor": _not_dense("sparse"),
    "torch._utils._rebuild_wrapper_subclass": _not_dense("wrapped"),
}
for _core in ("core", "_core"):
    _BUILDERS[f"numpy.{_core}.multiarray.scalar"] = _scalar
for _module in ("pathlib", "pathlib._local"):
    for _name in ("Path", "PosixPath", "PurePath", "PurePosixPath"):
        _BUILDERS[f"{_module}.{_name}"] = _path(PurePosixPath)
    for _name in ("WindowsPath", "PureWindowsPath"):
        _BUILDERS[f"{_module}.{_name}"] = _path(PureWindowsPath)
