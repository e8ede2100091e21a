"""Builders of tensors: torch's rebuilding functions, written out here.

https://github.com/pytorch/pytorch/blob/v2.5.0/torch/_utils.py
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.dtypes import BY_TORCH_NAME, DTYPES
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.storages import QUANTIZED_TENSOR
from checkpoint_release.pth.unpickler import Builder, Unpickler, Unsupported
from checkpoint_release.tensors.tensor import Tensor

BLOCK = "a block of a tensor that is cut over the ranks of a training"
"""Why a DTensor or ShardedTensor of one rank alone can't be released."""
_NOT_DENSE = "a {} tensor, which safetensors can't hold"
META = _NOT_DENSE.format("meta")
"""Why a tensor without a storage can't be released."""
_BLOCKS = re.compile(
    r"torch\.distributed\.(_tensor|tensor)(\._api|\.api)?\.DTensor"
    r"|torch\.distributed\._shard\.sharded_tensor\.api\.ShardedTensor"
)
QUANTIZED = "torch._utils._rebuild_qtensor"
"""What rebuilds a quantized tensor; a record of it has its integers and parameters."""
MAX_DIMENSIONS = 64  # torch's own limit
MAX_NBYTES = (1 << 63) - 1  # of a tensor, sizes of zero counted as one
MAX_NUMBER = 1 << 62  # in a shape, strides or an offset, which have 64 bits in torch
# A file's tensors may claim this many times its size, besides a fixed allowance: views,
# ties and expanded tensors repeat bytes, and each is written out.
MAX_CLAIM = 16
CLAIM_ALLOWANCE = 256 << 20  # bytes
_DIMENSION = 48  # bytes charged for each: its checks take about a microsecond


@dataclass(frozen=True)
class _Layout:
    """Where a tensor's elements are in its storage, counted in elements.

    Raises:
        ValueError: it is not what torch writes.
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check what everything that is computed from a layout relies on.

        Negative strides, which numpy has and torch hasn't, would reach before the
        storage; True and 2.0 are no sizes, though they would count as such.
        """
        dimensions = len(self.shape)
        if dimensions != len(self.strides) or dimensions > MAX_DIMENSIONS:
            raise ValueError(
                f"a tensor has {dimensions} sizes and {len(self.strides)} strides"
            )
        for number in (self.offset, *self.shape, *self.strides):
            if type(number) is not int or not 0 <= number < MAX_NUMBER:
                raise ValueError(
                    "a tensor's shape, strides or offset are not what torch writes"
                )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def check_addressable(self, width: int) -> None:
        """Require that its size can be counted in 64 bits, as safetensors does.

        Also of a tensor without elements: of (2**61, 2**61, 0) others multiply the
        first sizes before they see the last.

        Args:
            width: of an element, in bytes.

        Raises:
            ValueError: it can't.
        """
        sizes = [max(size, 1) for size in self.shape]
        if math.prod(sizes) * width > MAX_NBYTES:
            raise ValueError(
                f"no tensor can have the shape {list(self.shape)}: its size has more"
                " than 63 bits"
            )

    @property
    def end(self) -> int:
        """Elements of the storage up to and with the last one that the tensor has.

        The last one has the highest index in each dimension, because no stride is
        negative. An empty tensor has none, wherever its offset is.
        """
        if self.size == 0:
            return 0
        last = self.offset
        for size, stride in zip(self.shape, self.strides, strict=True):
            last += (size - 1) * stride
        return last + 1


class TensorBuilders:
    """Makes the tensors of one file, and keeps account of what they claim.

    Args:
        file_size: size of the checkpoint, in bytes.
    """

    def __init__(self, file_size: int) -> None:
        self._claims_left = CLAIM_ALLOWANCE + MAX_CLAIM * file_size

    def by_name(self) -> dict[str, Builder]:
        """Dotted name of each of torch's rebuilding functions → builder."""
        return {
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._rebuild_tensor_v3,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
            "torch.nn.parameter.Parameter": _rebuild_parameter,
            "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
            "torch._tensor._rebuild_from_type": _rebuild_from_type,
            "torch.tensor._rebuild_from_type": _rebuild_from_type,
            "torch._utils._rebuild_meta_tensor_no_storage": _not_dense("meta"),
            "torch._utils._rebuild_nested_tensor": _not_dense("nested"),
            QUANTIZED: self._rebuild_quantized,
            "torch._utils._rebuild_sparse_csr_tensor": _not_dense("sparse"),
            "torch._utils._rebuild_sparse_tensor": _not_dense("sparse"),
            "torch._utils._rebuild_wrapper_subclass": _not_dense("wrapped"),
        }

    def _rebuild_tensor(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        """_rebuild_tensor(storage, offset, shape, strides), of before torch 0.4.

        Raises:
            Unsupported, ValueError: as _view.
        """
        if len(args) != 4:
            raise Unsupported
        return self._view(unpickler, args)

    def _rebuild_tensor_v2(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks).

        Since torch 1.13 with metadata behind it. Gradients and hooks are left aside: a
        release holds values, and a hook is code.

        Raises:
            Unsupported, ValueError: as _view.
        """
        if len(args) not in (6, 7):
            raise Unsupported
        return self._view(unpickler, args[:4], metadata=args[6:])

    def _rebuild_tensor_v3(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        """_rebuild_tensor_v3: the same with a dtype before the metadata.

        The storage is one of bytes then, for dtypes that have no storage class, such as
        float8_e4m3fn and uint16.

        Raises:
            Unsupported, ValueError: as _view.
        """
        if len(args) not in (7, 8):
            raise Unsupported
        return self._view(unpickler, args[:4], dtype=args[6], metadata=args[7:])

    def _rebuild_quantized(self, unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        """_rebuild_qtensor(storage, offset, shape, strides, parameters, …).

        Returns:
            A record with the integers as a tensor, and the parameters: the scheme's
            record, the scale, the zero point.

        Raises:
            Unsupported: the integers are packed, or something else is there.
            ValueError: as _view.
        """
        if len(args) not in (7, 8):
            raise Unsupported(QUANTIZED_TENSOR)
        storage, *view, parameters = args[:5]
        if not isinstance(storage, Inert) or not isinstance(storage.state, Tensor):
            raise Unsupported(QUANTIZED_TENSOR)
        integers = self._view(unpickler, (storage.state, *view))
        return Inert(QUANTIZED, (integers, parameters), reason=QUANTIZED_TENSOR)

    def _view(
        self,
        unpickler: Unpickler,
        view: tuple[Any, ...],
        *,
        dtype: Any = None,
        metadata: tuple[Any, ...] = (),
    ) -> Tensor:
        """A strided look at a storage, checked to lie within it.

        Args:
            unpickler: is charged for the time that many dimensions take.
            view: storage, offset, shape, strides.
            dtype: the record of a torch dtype; None: the storage's.
            metadata: nothing, or the flags of a lazy conjugate or negative.

        Raises:
            Unsupported: something else is there.
            ValueError: it lies outside of the storage, or claims too much.
        """
        storage, offset, shape, strides = view
        base = _require_storage(storage)
        if type(shape) is not tuple or type(strides) is not tuple:
            raise Unsupported
        name = base.dtype if dtype is None else _dtype_name(dtype)
        unpickler.charge(_DIMENSION * len(shape))
        layout = _Layout(offset, shape, strides)
        layout.check_addressable(DTYPES[name].bits // 8)
        begin = _check_within(base, name, layout)
        self._claim(layout.size * DTYPES[name].bits // 8)
        flags = {}
        if metadata and type(metadata[0]) is dict:
            flags = metadata[0]
        conjugate, negate = bool(flags.get("conj")), bool(flags.get("neg"))
        _check_signs(name, conjugate, negate)
        return Tensor(
            name,
            layout.shape,
            layout.strides,
            begin + layout.offset,
            base.storage,
            conjugate=conjugate,
            negate=negate,
        )

    def _claim(self, nbytes: int) -> None:
        """Account for a tensor's elements, which its export would write.

        With a stride of zero one element can be expanded to a shape of any size, and a
        thousand tensors can share one storage: every one of them lies within it.

        Args:
            nbytes: the elements' size, each counted once by its index.

        Raises:
            ValueError: the file's tensors claim too much together.
        """
        self._claims_left -= nbytes
        if self._claims_left < 0:
            raise ValueError(
                f"its tensors claim more than {MAX_CLAIM} times the size of the file"
            )


def _check_signs(dtype: str, conjugate: bool, negate: bool) -> None:
    """Require that a lazy conjugate or negative is of a dtype that has one.

    torch sets the bits on complex tensors and on their floating-point views.

    Raises:
        ValueError: it isn't; changing the signs would change what was saved.
    """
    kind = DTYPES[dtype].kind
    if conjugate and kind != "complex":
        raise ValueError(f"a tensor of {dtype} is marked as a complex conjugate")
    if negate and kind not in ("half", "float", "complex"):
        raise ValueError(f"a tensor of {dtype} is marked as a negative")


def _require_storage(storage: Any) -> Tensor:
    """What stands for a storage: a one-dimensional tensor over all or part of it.

    Args:
        storage: what the pickle has in its place; persistent_load makes the right one.

    Raises:
        Unsupported: it is something else; of a quantized storage with the reason.
    """
    if isinstance(storage, Inert):
        raise Unsupported(storage.reason)
    if not isinstance(storage, Tensor) or len(storage.shape) != 1:
        raise Unsupported
    return storage


def _dtype_name(record: Any) -> str:
    """safetensors' name of the dtype that a record such as torch.float32 stands for.

    Raises:
        Unsupported: it is no dtype, or none that is supported.
    """
    if not isinstance(record, Inert) or not record.name.startswith("torch."):
        raise Unsupported
    torch_name = record.name.removeprefix("torch.")
    dtype = BY_TORCH_NAME.get(torch_name)
    if dtype is None:
        raise Unsupported(f"a tensor of dtype {torch_name}, which is not supported")
    return dtype.name


def _check_within(base: Tensor, dtype: str, layout: _Layout) -> int:
    """Check that a layout lies within what `base` looks at.

    Args:
        base: a one-dimensional tensor over a storage.
        dtype: of the layout's elements; perhaps another than base's.
        layout: counted from where `base` begins.

    Returns:
        Where `base` begins in its storage, in elements of the dtype.

    Raises:
        ValueError: it doesn't.
    """
    width = DTYPES[dtype].bits // 8
    base_width = DTYPES[base.dtype].bits // 8
    skipped = base.offset * base_width
    if skipped % width:
        raise ValueError("a view of a storage begins within an element")
    available = min(base.storage.nbytes - skipped, base.shape[0] * base_width)
    if layout.end * width > available:
        raise ValueError(
            f"a tensor of shape {layout.shape}, strides {layout.strides} and offset"
            f" {layout.offset} reaches {layout.end * width} bytes into a storage of"
            f" {available}"
        )
    return skipped // width


def _rebuild_parameter(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """(tensor, requires_grad, hooks[, state]): the tensor.

    Raises:
        Unsupported: the first argument is no tensor; with its reason.
    """
    if not args:
        raise Unsupported
    return _require_tensor(args[0])


def _rebuild_from_type(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """(function, type, arguments, state): the tensor that the function rebuilds.

    So torch pickles tensors of subclasses, and those with attributes. The function may
    not be one of these itself: it would call itself as deep as the file says.

    Raises:
        Unsupported: there are other arguments, or no tensor comes of them.
    """
    if len(args) != 4:
        raise Unsupported
    function = args[0]
    if not isinstance(function, Inert) or "_rebuild_from_type" in function.name:
        raise Unsupported
    if isinstance(args[1], Inert) and _BLOCKS.fullmatch(args[1].name):
        raise Unsupported(BLOCK)
    return _require_tensor(unpickler.call(function, args[2]))


def _require_tensor(value: Any) -> Tensor:
    """The tensor that was rebuilt.

    Raises:
        Unsupported: it stayed a record; with its reason.
    """
    if isinstance(value, Tensor):
        return value
    raise Unsupported(value.reason if isinstance(value, Inert) else "")


def _not_dense(kind: str) -> Builder:
    """The builder that says why a tensor can't be exported.

    Args:
        kind: how it is stored otherwise than densely.
    """

    def refuse(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        raise Unsupported(_NOT_DENSE.format(kind))

    return refuse
