"""Which globals named by a pickle could do harm if a less careful reader called them.

Nothing here decides what is run, since nothing is: it decides what a person must be
told before trusting the file. The standard library is dangerous but for the plain data
types listed; so is torch but for what models and optimizers hold; of other packages,
the known ways to run or load code. An unknown class of an unknown package is somebody's
config.
"""

from __future__ import annotations

import builtins
import collections.abc
import sys
import typing

_EXCEPTIONS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}

_HARMLESS_IN_STDLIB = {
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "array": {"array", "_array_reconstructor"},
    "builtins": _EXCEPTIONS | {
        "Ellipsis", "NotImplemented", "abs", "all", "any", "bool", "bytearray", "bytes", "complex",
        "dict", "enumerate", "float", "frozenset", "int", "len", "list", "max", "min", "object",
        "property", "range", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple",
        "type", "zip",
    },
    "_io": {"BytesIO", "StringIO"},
    "collections.abc": set(collections.abc.__all__),
    "collections": {"Counter", "OrderedDict", "UserDict", "UserList", "defaultdict", "deque", "ChainMap"},
    "copyreg": {"_reconstructor", "__newobj__", "__newobj_ex__"},
    "dataclasses": {"Field", "_MISSING_TYPE"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone", "tzinfo"},
    "decimal": {"Decimal"},
    "enum": {"Enum", "Flag", "IntEnum", "IntFlag", "StrEnum", "auto"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "io": {"BytesIO", "StringIO"},
    "itertools": {"count", "cycle", "repeat"},
    "logging": {"Logger", "getLogger", "_loggerClass"},
    "optparse": {"Values"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "random": {"Random"},
    "re": {"_compile"},
    "time": {"struct_time"},
    "types": {"GenericAlias", "MappingProxyType", "NoneType", "SimpleNamespace", "UnionType"},
    "typing": {name for name in typing.__all__ if name[0].isupper()} | {"_GenericAlias", "_UnionGenericAlias"},
    "uuid": {"UUID", "SafeUUID"},
    "zoneinfo": {"ZoneInfo", "ZoneInfo._unpickle"},
}  # fmt: skip

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

_DANGEROUS_MODULES = frozenset(
    {
        "Cython", "IPython", "PIL.Image.open", "_pytest", "aiohttp", "anyio", "asynchat",
        "asyncore", "boto3", "cPickle", "cffi", "cgi", "cgitb", "cloudpickle", "commands", "crypt",
        "dill", "distutils", "execnet", "fabric", "fire", "fsspec", "fused", "gevent", "h5py",
        "httplib", "httplib2", "httpx", "huggingface_hub", "imp", "invoke", "ipykernel", "joblib",
        "jsonpickle", "jupyter", "keras", "keyring", "lib2to3", "mailcap", "mlflow.pyfunc",
        "msilib", "nis", "nntplib", "nt", "numba", "numexpr", "numpy._core.memmap", "numpy.compat",
        "numpy.core.memmap", "numpy.core.records.fromfile", "numpy.ctypeslib", "numpy.distutils",
        "numpy.f2py", "numpy.fromfile", "numpy.genfromtxt", "numpy.lib", "numpy.load",
        "numpy.loadtxt", "numpy.ma.core.load", "numpy.memmap", "numpy.save", "numpy.savetxt",
        "numpy.savez", "numpy.testing", "onnxruntime", "pandas.compat", "pandas.core.computation",
        "pandas.io", "pandas.read_pickle", "paramiko", "pexpect", "pip", "pipes", "pkg_resources",
        "plumbum", "popen2", "psutil", "ptyprocess", "py", "pycurl", "pyximport", "ray.cloudpickle",
        "requests", "s3fs", "scipy.LowLevelCallable", "scipy.io", "setuptools", "sh", "skimage.io",
        "skops.io", "smart_open", "smtpd", "spwd", "sympy", "telnetlib", "tensorflow",
        "torchvision.datasets.utils", "tornado", "transformers.utils.hub", "trio", "twisted",
        "urllib2", "urllib3", "uu", "uvloop", "virtualenv", "wandb.sdk.lib", "websocket",
        "websockets", "wheel", "win32api", "win32com", "win32process", "yaml",
    }
)  # fmt: skip
"""What runs commands, opens connections or makes code out of data, and modules gone
from newer Pythons.
"""

_DANGEROUS_PARTS = frozenset(
    {
        "__builtin__", "__builtins__", "builtins", "ctypes", "importlib", "nt", "os", "pickle", "posix", "posixpath",
        "pty", "runpy", "shutil", "socket", "subprocess", "sys",
    }
)  # fmt: skip
"""Modules that are dangerous as any part of a name: `numpy.os.system` reaches the same
function as `os.system`.
"""

_DANGEROUS_FUNCTIONS = frozenset(
    {
        "breakpoint", "compile", "delattr", "eval", "exec", "exec_module", "execfile", "getattr", "globals",
        "import_module", "load_library", "load_module", "load_state_dict_from_url", "locals", "open", "popen",
        "setattr", "spawn", "system", "vars",
    }
)  # fmt: skip
"""Functions that are dangerous in whatever module they are found."""


def is_dangerous(module: str, name: str) -> bool:
    """Whether calling `name` of `module` could run code, read or write files, or reach
    the network.
    """
    components = f"{module}.{name}".split(".")
    if any(_is_magic(part) for part in components[1:]) and (module, name) not in {
        ("copyreg", "__newobj__"),
        ("copyreg", "__newobj_ex__"),
    }:
        return True
    if components[0] in sys.stdlib_module_names:
        return name not in _HARMLESS_IN_STDLIB.get(module, ())
    if components[-1] in _DANGEROUS_FUNCTIONS or _DANGEROUS_PARTS.intersection(
        components
    ):
        return True
    if components[0] == "torch":
        if len(components) == 2:
            return name in {
                "classes",
                "compile",
                "hub",
                "jit",
                "load",
                "ops",
                "package",
                "save",
            }
        stored = components[:-1] == ["torch", "cuda"] and name.endswith(
            ("Storage", "Tensor")
        )
        return not stored and not f"{module}.{name}".startswith(_HARMLESS_IN_TORCH)
    prefixes = (
        ".".join(components[:length]) for length in range(1, len(components) + 1)
    )
    return any(prefix in _DANGEROUS_MODULES for prefix in prefixes)


def _is_magic(component: str) -> bool:
    if component in ("__main__", "__mp_main__", "__init__"):
        return False  # where a training script's own classes are
    return component.startswith("__") and component.endswith("__")
