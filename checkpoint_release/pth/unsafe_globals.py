"""Which globals named by a pickle could do harm if a less careful reader called them.

Nothing here decides what is run, since nothing is: it decides what a person must know
before trusting the file. The standard library is dangerous but for the data types
listed; so is torch but for what models and optimizers hold; of other packages, the
known ways to run or load code. An unknown class of an unknown package is somebody's
config.
"""

from __future__ import annotations

import builtins
import collections.abc
import sys
import typing


def _names(text: str) -> frozenset[str]:
    """The names in a text, with blanks or line breaks between them."""
    return frozenset(text.split())


def _exceptions() -> frozenset[str]:
    """The names of Python's own exceptions, which a trainer may save with its state.

    Making one runs no code but its own constructor. They are those of the Python that
    runs here; an exception of a newer one is reported as dangerous, to be safe.
    """
    names = set()
    for name, kind in vars(builtins).items():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            names.add(name)
    return frozenset(names)


def _typing_names() -> frozenset[str]:
    """The classes and forms of typing, which have capital initials.

    Its functions are left out: get_type_hints evaluates text as code.
    """
    return frozenset(name for name in typing.__all__ if name[0].isupper())


_PATHS = _names("Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath")

_HARMLESS_IN_STDLIB = {
    "_codecs": _names("encode"),
    "argparse": _names("Namespace"),
    "array": _names("_array_reconstructor array"),
    "builtins": _exceptions()
    | _names(
        """
        Ellipsis NotImplemented abs all any bool bytearray bytes complex dict
        enumerate float frozenset int len list max min object property range
        reversed round set slice sorted str sum tuple type zip
        """
    ),
    "_io": _names("BytesIO StringIO"),
    "collections.abc": frozenset(collections.abc.__all__),
    "collections": _names(
        "ChainMap Counter OrderedDict UserDict UserList defaultdict deque"
    ),
    "copyreg": _names("__newobj__ __newobj_ex__ _reconstructor"),
    "dataclasses": _names("Field _MISSING_TYPE"),
    "datetime": _names("date datetime time timedelta timezone tzinfo"),
    "decimal": _names("Decimal"),
    "enum": _names("Enum Flag IntEnum IntFlag StrEnum auto"),
    "fractions": _names("Fraction"),
    "functools": _names("partial"),
    "io": _names("BytesIO StringIO"),
    "itertools": _names("count cycle repeat"),
    "logging": _names("Logger _loggerClass getLogger"),
    "optparse": _names("Values"),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "random": _names("Random"),
    "re": _names("_compile"),
    "time": _names("struct_time"),
    "types": _names("GenericAlias MappingProxyType NoneType SimpleNamespace UnionType"),
    "typing": _typing_names() | _names("_GenericAlias _UnionGenericAlias"),
    "uuid": _names("SafeUUID UUID"),
    "zoneinfo": _names("ZoneInfo ZoneInfo._unpickle"),
}
"""Module → the names in it that are data types, or make them.

Every other name of the standard library counts as dangerous: it has too many ways to
run code to list them, and new Pythons add more.
"""

_HARMLESS_IN_TORCH = (
    "torch.amp.",
    "torch._C._nn.",
    "torch._C.Generator",
    "torch.ao.nn.",
    "torch.ao.quantization.",
    "torch.autograd.variable.",
    "torch.cuda.amp.",
    "torch.distributed._shard.",
    "torch.distributed.device_mesh.",
    "torch.distributed.fsdp.",
    "torch.distributed._tensor.",
    "torch.distributed.tensor.",
    "torch.distributions.",
    "torch.nested.",
    "torch.nn.",
    "torch.optim.",
    "torch.quantization.",
    "torch.return_types.",
    "torch.serialization._get_layout",
    "torch.sparse.",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "torch.storage._TypedStorage",
    "torch.storage._UntypedStorage",
    "torch.torch_version.",
    "torch.utils.data.dataloader.",
    "torch.utils.data.dataset.",
    "torch.utils.data.distributed.",
    "torch.utils.data.sampler.",
    "torch.utils.hooks.",
    "torch._tensor._rebuild_",
    "torch.tensor._rebuild_",
    "torch._utils._rebuild_",
)
"""Beginnings of the dotted names that models, optimizers and data loaders save.

The rest of torch counts as dangerous: it loads libraries, compiles programs and opens
URLs.
"""

_DANGEROUS_MODULES = _names(
    """
    _pytest aiohttp anyio asynchat asyncore boto3 cffi cgi cgitb cloudpickle
    commands cPickle crypt Cython dill distutils execnet fabric fire fsspec fused
    gevent h5py httplib httplib2 httpx huggingface_hub imp invoke ipykernel IPython
    joblib jsonpickle jupyter keras keyring lib2to3 mailcap mlflow.pyfunc msilib nis
    nntplib nt numba numexpr numpy._core.memmap numpy.compat numpy.core.memmap
    numpy.core.records.fromfile numpy.ctypeslib numpy.distutils numpy.f2py
    numpy.fromfile numpy.genfromtxt numpy.lib numpy.load numpy.loadtxt
    numpy.ma.core.load numpy.memmap numpy.save numpy.savetxt numpy.savez
    numpy.testing onnxruntime pandas.compat pandas.core.computation pandas.io
    pandas.read_pickle paramiko pexpect PIL.Image.open pip pipes pkg_resources
    plumbum popen2 psutil ptyprocess py pycurl pyximport ray.cloudpickle requests
    s3fs scipy.io scipy.LowLevelCallable setuptools sh skimage.io skops.io
    smart_open smtpd spwd sympy telnetlib tensorflow torchvision.datasets.utils
    tornado transformers.utils.hub trio twisted urllib2 urllib3 uu uvloop virtualenv
    wandb.sdk.lib websocket websockets wheel win32api win32com win32process yaml
    """
)
"""What runs commands, opens connections or makes code out of data, and modules gone
from newer Pythons.
"""

_DANGEROUS_PARTS = _names(
    """
    __builtin__ __builtins__ builtins ctypes importlib nt os pickle posix posixpath
    pty runpy shutil socket subprocess sys
    """
)
"""Modules that are dangerous as any part of a name: `numpy.os.system` reaches the same
function as `os.system`.
"""

_DANGEROUS_FUNCTIONS = _names(
    """
    breakpoint compile delattr eval exec exec_module execfile getattr globals
    import_module load_library load_module load_state_dict_from_url locals open
    popen setattr spawn system vars
    """
)
"""Functions that are dangerous in whatever module they are found."""

_DANGEROUS_IN_TORCH = _names("classes compile hub jit load ops package save")
"""Names at the top of torch that reach code; others there are dtypes and the like."""


def is_dangerous(module: str, name: str) -> bool:
    """Whether calling a global could do harm.

    It does harm if it runs code, reads or writes files, or reaches the network. The
    checks go from what is dangerous anywhere to what is known of single packages;
    a name that none of them knows is taken for a class of somebody's project.

    Args:
        module: dotted, as the pickle names it, in Python 3's names.
        name: of a function or class, perhaps dotted itself: protocol 4 resolves such a
            name attribute by attribute, so each of its parts counts.
    """
    components = f"{module}.{name}".split(".")
    harmless_magic = (module, name) in _HARMLESS_MAGIC
    if _has_magic(components) and not harmless_magic:
        return True
    package = components[0]
    if package in sys.stdlib_module_names:
        return name not in _HARMLESS_IN_STDLIB.get(module, ())
    if components[-1] in _DANGEROUS_FUNCTIONS:
        return True
    if _DANGEROUS_PARTS.intersection(components):
        return True
    if package == "torch":
        return _is_dangerous_in_torch(components)
    return _is_in_dangerous_module(components)


_HARMLESS_MAGIC = {("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")}
"""What protocols below 2 make instances with; they call no more than the class does."""
_OWN_CLASSES = _names("__main__ __mp_main__ __init__")
"""Where a training script's own classes are."""


def _has_magic(components: list[str]) -> bool:
    """Whether a part behind the package is one such as `__globals__`.

    From any Python function `__globals__` leads to its module's names, and from there
    to builtins and their eval: harmless.function.__globals__ is as good as os.system.

    Args:
        components: the parts of the dotted name, the package the first of them.
    """
    for part in components[1:]:
        if part in _OWN_CLASSES:
            continue
        if part.startswith("__") and part.endswith("__"):
            return True
    return False


def _is_dangerous_in_torch(components: list[str]) -> bool:
    """Whether a name in torch is other than what models and optimizers hold.

    At its top most names are dtypes and types such as torch.Size, and the few others
    are listed; below, it is the other way round.

    Args:
        components: the parts of the dotted name, "torch" the first of them.
    """
    *module, name = components
    if module == ["torch"]:
        return name in _DANGEROUS_IN_TORCH
    if module == ["torch", "cuda"] and name.endswith(("Storage", "Tensor")):
        return False
    return not ".".join(components).startswith(_HARMLESS_IN_TORCH)


def _is_in_dangerous_module(components: list[str]) -> bool:
    """Whether the name or a module that it is in is one of the dangerous ones.

    Of "yaml.loader.Loader" these are looked up: "yaml", "yaml.loader" and the whole.

    Args:
        components: the parts of the dotted name, the package the first of them.
    """
    for length in range(1, len(components) + 1):
        if ".".join(components[:length]) in _DANGEROUS_MODULES:
            return True
    return False
