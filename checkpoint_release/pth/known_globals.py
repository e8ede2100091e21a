"""The globals that are known to be inert data, and those that are known to run code.

Inert is what makes a value and does nothing else: a container, a number, a date, a
tensor, the description of a layer. Each name is listed; a whole module is only where a
test looks through all that it holds.
"""

from __future__ import annotations

import builtins
import collections.abc
import re
import typing


def names_in(text: str) -> frozenset[str]:
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


_PATHS = names_in("Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath")

STDLIB = {
    "_codecs": names_in("encode"),
    "argparse": names_in("Namespace"),
    "array": names_in("_array_reconstructor array"),
    "builtins": _exceptions()
    | names_in(
        """
        Ellipsis NotImplemented abs all any bool bytearray bytes complex dict
        enumerate float frozenset int len list max min object property range
        reversed round set slice sorted str sum tuple type zip
        """
    ),
    "_io": names_in("BytesIO StringIO"),
    "collections.abc": frozenset(collections.abc.__all__),
    "collections": names_in(
        "ChainMap Counter OrderedDict UserDict UserList defaultdict deque"
    ),
    "copyreg": names_in("__newobj__ __newobj_ex__ _reconstructor"),
    "dataclasses": names_in("Field _MISSING_TYPE"),
    "datetime": names_in("date datetime time timedelta timezone tzinfo"),
    "decimal": names_in("Decimal"),
    "enum": names_in("Enum Flag IntEnum IntFlag StrEnum auto"),
    "fractions": names_in("Fraction"),
    "functools": names_in("partial"),
    "io": names_in("BytesIO StringIO"),
    "ipaddress": names_in(
        """
        IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network
        """
    ),
    "itertools": names_in("count cycle repeat"),
    "logging": names_in("Logger _loggerClass getLogger"),
    "optparse": names_in("Values"),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "random": names_in("Random"),
    "re": names_in("_compile"),
    "time": names_in("struct_time"),
    "types": names_in(
        "GenericAlias MappingProxyType NoneType SimpleNamespace UnionType"
    ),
    "typing": _typing_names() | names_in("_GenericAlias _UnionGenericAlias"),
    "uuid": names_in("SafeUUID UUID"),
    "zoneinfo": names_in("ZoneInfo ZoneInfo._unpickle"),
}
"""Module → the names in it that are data types, or make them.

Every other name of the standard library counts as dangerous: it has too many ways to
run code to list them, and new Pythons add more.
"""

TORCH = re.compile(
    r"torch\.("
    # dtypes, layouts, memory formats and types
    r"bool|bfloat16|half|float|double|b?complex\d+|u?int\d+|float\d+\w*|bits\w+"
    r"|short|int|long|chalf|cfloat|cdouble|q(u?int\d+|u?int\d+x\d)"
    r"|strided|sparse_\w+|jagged|_mkldnn|preserve_format|contiguous_format"
    r"|channels_last\w*|per_(tensor|channel)_\w+"
    r"|Size|Tensor|device|Generator|dtype|layout|memory_format|finfo|iinfo"
    r"|(cuda\.|sparse\.|cuda\.sparse\.)?\w*(Storage|Tensor)"
    r"|storage\._?(Typed|Untyped)Storage"
    r"|torch_version\.TorchVersion|_C\.Generator|return_types\.\w+"
    # what torch.save writes for tensors
    r"|_utils\._rebuild_\w+|(_tensor|tensor)\._rebuild_from_type(_v2)?"
    r"|serialization\._get_layout"
    r"|nn\.parameter\.(Parameter|Buffer|Uninitialized(Parameter|Buffer))"
    # layers, optimizers and schedulers: the classes in these modules
    r"|nn\.modules\.\w+\.[A-Z]\w*|optim\.\w+\.[A-Z]\w*"
    r"|nn\.utils\.rnn\.PackedSequence|utils\.hooks\.RemovableHandle"
    r"|utils\.data\.(dataset|sampler)\.[A-Z]\w*"
    r"|(amp|cuda\.amp)\.grad_scaler\.(GradScaler|OptState)"
    # tensors over several devices
    r"|distributed\.device_mesh\.DeviceMesh|distributed\._mesh_layout\._(Mesh|Flat)Layout"
    r"|distributed\.(_tensor|tensor)(\._api|\.api)?\.DTensor"
    r"|distributed\.(_tensor|tensor)\.placement_types\.[A-Z_]\w*"
    r"|distributed\.(_tensor|tensor)\.(_dtensor_spec|placement_types)"
    r"\.(DTensorSpec|TensorMeta|ShardOrderEntry)"
    r"|distributed\._shard\.((sharded_tensor|sharding_spec|chunk_sharding_spec|api"
    r"|metadata|shard)\.)*[A-Z]\w*(\.(ProcessGroupState|TORCH_\w+))?"
    r"|distributed\.remote_device\._remote_device"
    # what a distributed checkpoint says of itself
    r"|distributed\.checkpoint\.metadata\.(Metadata|MetadataIndex|StorageMeta"
    r"|(Tensor|Bytes|Chunk)StorageMetadata|TensorProperties"
    r"|_MEM_FORMAT_ENCODING(\.TORCH_\w+)?)"
    r"|distributed\.checkpoint\.filesystem\._Storage(Info|Prefix)"
    r")"
)
"""The dotted names of torch that are inert."""

OTHERS = names_in(
    """
    numpy.dtype numpy.ndarray numpy.generic numpy.bool numpy.bool_ numpy.int8
    numpy.int16 numpy.int32 numpy.int64 numpy.uint8 numpy.uint16 numpy.uint32
    numpy.uint64 numpy.float16 numpy.float32 numpy.float64 numpy.longdouble
    numpy.complex64 numpy.complex128 numpy.str_ numpy.bytes_ numpy.datetime64
    numpy.timedelta64 numpy.ma.core.MaskedArray numpy.ma.core._mareconstruct
    numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar
    numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar
    numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer
    numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__generator_ctor
    numpy.random._pickle.__bit_generator_ctor numpy.random._mt19937.MT19937
    numpy.random._mt19937.__mt19937_ctor numpy.random._pcg64.PCG64
    numpy.random.mtrand.RandomState numpy.random._generator.Generator
    numpy.random.bit_generator.__pyx_unpickle_SeedSequence
    numpy.random.bit_generator.SeedSequence
    omegaconf.base.Box omegaconf.base.Container omegaconf.base.ContainerMetadata
    omegaconf.base.Metadata omegaconf.base.Node omegaconf.dictconfig.DictConfig
    omegaconf.listconfig.ListConfig omegaconf.nodes.AnyNode omegaconf.nodes.BooleanNode
    omegaconf.nodes.BytesNode omegaconf.nodes.EnumNode omegaconf.nodes.FloatNode
    omegaconf.nodes.IntegerNode omegaconf.nodes.PathNode omegaconf.nodes.StringNode
    lightning_fabric.utilities.data.AttributeDict
    lightning.fabric.utilities.data.AttributeDict
    pytorch_lightning.utilities.parsing.AttributeDict
    lightning.pytorch.utilities.parsing.AttributeDict
    transformers.training_args.TrainingArguments
    transformers.training_args.OptimizerNames
    transformers.trainer_utils.HubStrategy transformers.trainer_utils.IntervalStrategy
    transformers.trainer_utils.SaveStrategy transformers.trainer_utils.SchedulerType
    accelerate.utils.dataclasses.DistributedType accelerate.state.PartialState
    """
)
"""The dotted names of other packages that are inert."""

CODE_MODULES = names_in(
    """
    __builtin__ __builtins__ _pytest aiohttp ansible anyio asynchat asyncore asyncssh
    bentoml boto3 celery cffi cgi cgitb click cloudpickle commands cPickle crypt Cython
    dask datasets.load dill distributed.worker distutils django docker dotenv execnet
    fabric fire flask fsspec fused gevent git gitdb gradio h5py httplib httplib2 httpx
    huggingface_hub hydra imp invoke ipykernel IPython jinja2 joblib jsonpickle jupyter
    kazoo keras keyring kubernetes lib2to3 mailcap mako mlflow msilib nis nntplib nt
    numba numexpr numpy._core.memmap numpy._core.records numpy.apply_along_axis
    numpy.apply_over_axes numpy.compat numpy.core.memmap numpy.core.records
    numpy.ctypeslib numpy.DataSource numpy.distutils numpy.f2py numpy.fromfile
    numpy.fromfunction numpy.frompyfunc numpy.genfromtxt numpy.lib numpy.load
    numpy.loadtxt numpy.ma.core.load numpy.memmap numpy.piecewise numpy.rec numpy.save
    numpy.savetxt numpy.savez numpy.savez_compressed numpy.testing numpy.vectorize
    omegaconf._utils omegaconf.OmegaConf omegaconf.omegaconf omegaconf.resolvers
    onnxruntime pandas.compat pandas.core.computation pandas.eval pandas.io
    pandas.read_pickle paramiko pexpect PIL.Image.open pip pipes pkg_resources
    playwright plumbum popen2 psutil ptyprocess pwn py pyarrow pycurl pydantic._internal
    pydantic.deprecated pydantic.utils pydantic.v1 pydantic.validators pyximport ray
    redis requests rpyc ruamel.yaml s3fs scipy.io scipy.LowLevelCallable scrapy selenium
    setuptools sh skimage.io skops.io smart_open smtpd spwd sympy telnetlib tensorflow
    test.support torchvision.datasets.utils tornado transformers.dynamic_module_utils
    transformers.pipelines transformers.utils.hub trio twisted urllib2 urllib3 uu
    uvicorn uvloop virtualenv wandb.sdk.lib websocket websockets werkzeug wheel win32api
    win32com win32process yaml zerorpc zmq
    """
)
"""Modules and functions of other packages that run commands, open files or connections,
or make code out of data, and modules gone from newer Pythons.
"""

REACHABLE_MODULES = names_in(
    """
    __builtin__ __builtins__ asyncio bdb builtins cProfile codeop ctypes doctest
    functools gc http importlib linecache marshal multiprocessing nt ntpath operator os
    pathlib pdb pickle pkgutil posix posixpath pty runpy shelve shutil smtplib socket
    sqlite3 ssl subprocess sys tempfile timeit urllib webbrowser zipimport
    """
)
"""Modules of the standard library that others import: `numpy.os.system` reaches the
same function as `os.system`.
"""

CODE_FUNCTIONS = names_in(
    """
    __import__ attrgetter breakpoint compile delattr eval exec exec_module execfile
    find_class get_class_from_dynamic_module getattr globals import_module
    import_string instantiate itemgetter load_inline load_library load_module
    load_state_dict_from_url locals locate methodcaller myeval open popen read_pickle
    resolve_name run_module run_path setattr spawn system vars
    """
)
"""Functions that run code in whatever module they are found."""
