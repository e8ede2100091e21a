"""The verdict on a pickle's globals: what is known to run code is dangerous however it
is reached, only what is known to be inert is harmless, and real checkpoints stop
nobody.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from checkpoint_release.pth.known_globals import names_in
from checkpoint_release.pth.unsafe_globals import Verdict, judge

# Calls that published bypasses of pickle scanners are made of, and their kin: they run
# code or commands, read or write files, reach the network, or lead to what does.
GADGETS = sorted(
    names_in(
        """
    Cython.Inline:cython_inline IPython.core.interactiveshell:InteractiveShell
    IPython.utils.process:system IPython:embed PIL.Image:open __builtin__:apply
    __builtin__:eval __builtin__:execfile _ctypes:dlopen _operator:attrgetter
    _operator:methodcaller _pickle:loads _posixsubprocess:fork_exec
    _thread:start_new_thread _winapi:CreateProcess aiohttp:ClientSession
    argparse:FileType argparse:_sys.modules
    asyncio.unix_events:_UnixSubprocessTransport._start asyncio:create_subprocess_shell
    atexit:register bdb:Bdb.run bdb:Bdb.runeval boto3:client builtins:__import__
    builtins:breakpoint builtins:classmethod builtins:compile builtins:delattr
    builtins:dir builtins:eval builtins:exec builtins:exit builtins:filter
    builtins:getattr builtins:globals builtins:help builtins:input builtins:locals
    builtins:map builtins:memoryview builtins:open builtins:print builtins:setattr
    builtins:super builtins:vars cProfile:run cProfile:runctx celery:Celery cffi:FFI
    cgi:FieldStorage cgitb:handler cloudpickle.cloudpickle:_make_function
    cloudpickle.cloudpickle:subimport cloudpickle:loads code:InteractiveInterpreter
    code:InteractiveInterpreter.runcode code:interact codeop:compile_command
    collections:_sys.modules collections:namedtuple commands:getoutput
    compileall:compile_dir concurrent.futures.process:_process_worker
    concurrent.futures:ProcessPoolExecutor configparser:ConfigParser
    contextlib:ExitStack copy:copy copyreg:_extension_registry copyreg:add_extension
    copyreg:pickle crypt:crypt ctypes:CDLL ctypes:PyDLL ctypes:WinDLL curses:wrapper
    dataclasses:_create_fn dataclasses:make_dataclass datasets.load:load_dataset
    datetime:sys.modules dbm.dumb:open dbm:open decimal:_sys dill._dill:_create_function
    dill._dill:_import_module dill:load dill:loads distutils.file_util:write_file
    distutils.spawn:spawn django.utils.module_loading:import_string docker:from_env
    doctest:debug_script doctest:testfile ensurepip:_run_pip enum:sys fabric:Connection
    faulthandler:enable fileinput:input fire:Fire flask:Flask fsspec.core:open_files
    fsspec:open ftplib:FTP functools:cached_property functools:partialmethod
    functools:reduce functools:singledispatch gc:get_objects git.cmd:Git
    git:Repo.clone_from glob:glob gradio:Interface h5py:File http.client:HTTPSConnection
    http.server:HTTPServer httpx:get huggingface_hub:hf_hub_download
    hydra._internal.utils:_locate hydra.utils:call hydra.utils:get_class
    hydra.utils:instantiate idlelib.autocomplete:AutoComplete.get_entity
    idlelib.calltip:get_entity idlelib.debugobj:ObjectTreeItem.SetText
    idlelib.pyshell:ModifiedInterpreter.runcode idlelib.run:Executive.runcode
    imaplib:IMAP4 imp:load_module imp:load_source importlib._bootstrap:_load
    importlib.machinery:SourceFileLoader importlib.util:spec_from_file_location
    importlib:import_module importlib:reload inspect:currentframe inspect:getattr_static
    invoke:run jinja2.environment:Template.from_code jinja2:Environment jinja2:Template
    joblib.numpy_pickle:load joblib:load json.decoder:JSONDecoder json:load
    jsonpickle:decode keras.models:load_model keras.src.saving:load_model
    kubernetes.client:ApiClient lib2to3.pgen2.grammar:Grammar.loads
    lib2to3.pgen2.pgen:ParserGenerator.make_label linecache:getline
    linecache:updatecache logging.config:_resolve logging.config:dictConfig
    logging.config:listen logging.handlers:SocketHandler logging:FileHandler
    mailcap:findmatch mailcap:subst mako.template:Template marshal:load marshal:loads
    mlflow.pyfunc:load_model mmap:mmap msvcrt:open_osfhandle
    multiprocessing.reduction:_reduce_method multiprocessing.spawn:spawn_main
    multiprocessing.util:spawnv_passfds netrc:netrc nis:match nntplib:NNTP nt:system
    numba.core.compiler:compile_extra numba:jit numbers:sys numexpr:evaluate
    numpy._core.multiarray:fromfile.x numpy._core.records:fromfile
    numpy.compat.py3k:os.system numpy.core.multiarray:os.system
    numpy.core.records:fromfile numpy.ctypeslib:load_library
    numpy.distutils.cpuinfo:getoutput numpy.distutils.exec_command:exec_command
    numpy.f2py.crackfortran:getlincoef numpy.f2py.crackfortran:myeval
    numpy.f2py.crackfortran:param_eval numpy.f2py.diagnose:run_command
    numpy.f2py:compile numpy.lib.format:read_array numpy.lib.npyio:DataSource
    numpy.lib.npyio:load numpy.ma.core.operator:attrgetter
    numpy.ma.core:operator.attrgetter numpy.ma.core:operator.itemgetter
    numpy.random.mtrand:RandomState.__init__ numpy.testing._private.utils:runstring
    numpy.testing:measure numpy:DataSource numpy:apply_along_axis numpy:fromfile
    numpy:fromfunction numpy:genfromtxt numpy:load numpy:loadtxt numpy:memmap
    numpy:ndarray.dumps numpy:ndarray.tofile numpy:os.system numpy:save numpy:vectorize
    omegaconf.omegaconf:OmegaConf.load omegaconf:OmegaConf.load
    omegaconf:OmegaConf.register_new_resolver onnxruntime:InferenceSession
    operator:attrgetter operator:call operator:itemgetter operator:methodcaller
    optparse:sys.modules os:execv os:popen os:posix_spawn os:putenv os:remove os:rename
    os:spawnl os:system pandas.core.computation.eval:eval pandas.io.pickle:read_pickle
    pandas:eval pandas:read_pickle paramiko:SSHClient pathlib:Path.read_text
    pathlib:Path.write_bytes pathlib:os.system pdb:Pdb pdb:run pexpect:spawn
    pickle:Unpickler pickle:loads pickletools:dis pip._internal.cli.main:main
    pip._internal:main pip:main pipes:Template pkg_resources:run_script
    pkgutil:get_loader pkgutil:resolve_name platform:_syscmd_ver platform:popen
    plumbum:local popen2:popen2 poplib:POP3 posix:fork posix:system profile:Profile.run
    profile:Profile.runctx profile:run psutil:Popen pty:spawn ptyprocess:PtyProcess
    py_compile:compile pyarrow:memory_map pydantic._internal._validators:import_string
    pydantic.utils:import_string pydantic.v1.utils:import_string pydoc:locate
    pydoc:pipepager pydoc:safeimport pyximport:install readline:read_init_file
    redis:Redis requests.api:post requests:get rpyc:connect ruamel.yaml:load
    runpy:_run_code runpy:run_module runpy:run_path s3fs:S3FileSystem
    scipy.LowLevelCallable:from_cython scipy.io:loadmat setuptools.sandbox:run_setup
    setuptools:setup sh:Command shelve:DbfilenameShelf shelve:open shutil:copyfile
    shutil:move shutil:rmtree signal:signal site:addsitedir site:execsitecustomize
    skimage.io:imread smart_open:open smtplib:SMTP socket:create_connection
    socket:socket socketserver:TCPServer sqlite3:Connection sqlite3:connect
    ssl:create_default_context string:Formatter string:_re.enum.sys subprocess:Popen
    subprocess:check_output subprocess:getoutput subprocess:run
    sympy.parsing.sympy_parser:parse_expr sympy.utilities.lambdify:lambdify
    sympy:sympify sys:exit sys:modules sys:setprofile sysconfig:_main tarfile:open
    telnetlib:Telnet tempfile:NamedTemporaryFile tempfile:mktemp
    tensorflow.python.ops.io_ops:write_file tensorflow:io.write_file
    test.support.script_helper:assert_python_ok theirs.Config:__init__.__globals__
    theirs.a.shutil:rmtree theirs.core:numpy.load theirs.ops:eval theirs.ops:exec
    theirs.ops:load_library theirs.util:subprocess.run theirs:__getattr__
    theirs:__reduce_ex__ theirs:builtins.eval theirs:ctypes.CDLL theirs:f.__code__
    theirs:importlib.import_module theirs:os.system theirs:pickle.loads
    theirs:sys.modules theirs:torch.load theirs:x.__class__ theirs:x.__subclasses__
    threading:Thread threading:Thread.start timeit:main timeit:repeat timeit:timeit
    tkinter:Tk torch._C:_load_for_lite_interpreter torch._C:import_ir_module
    torch._dynamo.code_context:CodeContextDict torch._dynamo.debug_utils:cast_to
    torch._dynamo.guards:GuardBuilder torch._dynamo.guards:GuardBuilder.get
    torch._inductor.codecache:PyCodeCache.load torch._inductor.codecache:compile_file
    torch._inductor.compile_fx:compile_fx torch._ops:OpOverloadPacket
    torch._ops:_Ops.load_library torch._tensor:_rebuild_from_type_v2.__globals__
    torch._utils:_import_dotted_name torch._utils:classproperty torch._utils:importlib
    torch.autograd.profiler:profile torch.backends:sys torch.cuda._sanitizer:enable
    torch.cuda:memory torch.distributed.checkpoint:load
    torch.distributed.distributed_c10d:_object_to_tensor
    torch.distributed.elastic.multiprocessing.subprocess_handler:SubprocessHandler
    torch.distributed.launcher.api:elastic_launch
    torch.distributed.rpc.internal:_run_function torch.distributed.rpc:rpc_sync
    torch.distributed.run:main torch.distributed:init_process_group torch.export:load
    torch.fx._lazy_graph_module:_forward_from_src
    torch.fx.experimental.symbolic_shapes:ShapeEnv.evaluate_guards_expression
    torch.fx.graph_module:_exec_with_source torch.fx.graph_module:_forward_from_src
    torch.fx.graph_module:reduce_graph_module torch.fx:symbolic_trace
    torch.hub:download_url_to_file torch.hub:load torch.hub:load_state_dict_from_url
    torch.jit._recursive:exec torch.jit._script:script torch.jit:load
    torch.library:Library torch.multiprocessing.reductions:rebuild_storage_fd
    torch.multiprocessing.reductions:rebuild_storage_filename
    torch.multiprocessing:spawn torch.nn.functional:boolean_dispatch.x
    torch.nn.functional:importlib.import_module torch.nn.functional:torch.load
    torch.nn.functional:torch.utils.cpp_extension.load_inline
    torch.nn.modules.container:Sequential.forward torch.nn.modules.container:operator
    torch.nn.modules.container:operator.attrgetter
    torch.nn.modules.container:operator.itemgetter
    torch.nn.modules.lazy:itertools.starmap
    torch.nn.modules.linear:Linear.forward.__globals__
    torch.distributed._shard.sharded_tensor.api:threading.Timer
    torch.nn.modules.module:Module.__getattr__ torch.nn.modules.module:functools.reduce
    torch.nn.modules.module:torch.hub.load torch.nn.modules.module:warnings
    torch.nn.parallel.comm:warnings torch.nn.parallel.distributed:os.system
    torch.nn.utils:parametrize torch.onnx:export torch.ops:load_library
    torch.optim.lr_scheduler:types.CodeType torch.optim.lr_scheduler:warnings.sys
    torch.optim.optimizer:Optimizer.add_param_group.__func__
    torch.optim.optimizer:torch.load torch.optim.swa_utils:update_bn
    torch.overrides:resolve_name torch.package:PackageImporter torch.profiler:profile
    torch.serialization:find_source_files torch.serialization:load
    torch.serialization:os.system torch.serialization:pickle
    torch.storage:TypedStorage.from_file torch.storage:UntypedStorage.from_file
    torch.storage:_load_from_bytes torch.storage:io.open torch.storage:pickle.loads
    torch.testing._internal.common_utils:run_tests
    torch.testing._internal.distributed.rpc.rpc_test:MyClass
    torch.utils._config_module:ConfigModule.load_config
    torch.utils._config_module:load_config
    torch.utils.bottleneck.__main__:run_autograd_prof
    torch.utils.bottleneck.__main__:run_cprofile torch.utils.collect_env:run
    torch.utils.collect_env:run_and_read_all torch.utils.cpp_extension:load
    torch.utils.cpp_extension:load_inline torch.utils.cpp_extension:subprocess.run
    torch.utils.data.datapipes.utils.decoder:basichandlers
    torch.utils.file_baton:FileBaton.acquire torch.utils.mkldnn:to_mkldnn
    torch.utils.model_dump:get_model_info torch.utils.model_zoo:load_url torch:classes
    torch:compile torch:from_file torch:hub torch:jit torch:load torch:multiprocessing
    torch:ops torch:package torch:save torch:serialization torch:utils trace:Trace.run
    trace:Trace.runctx traceback:walk_stack tracemalloc:start
    transformers.dynamic_module_utils:get_class_from_dynamic_module
    transformers.dynamic_module_utils:get_class_in_module
    transformers.pipelines:pipeline transformers.utils.hub:cached_file turtle:Screen
    types:CodeType types:FunctionType types:MethodType types:ModuleType types:new_class
    typing:_eval_type typing:get_type_hints typing:sys.modules unittest.mock:_importer
    unittest.mock:patch unittest:main urllib.request:Request urllib.request:urlopen
    urllib.request:urlretrieve urllib3:PoolManager uu:decode venv:create venv:main
    virtualenv:cli_run wandb.sdk.lib.filesystem:mkdir weakref:finalize webbrowser:get
    webbrowser:open werkzeug.utils:import_string wheel.cli:main winreg:SetValue
    wsgiref.simple_server:make_server xmlrpc.client:ServerProxy yaml.loader:UnsafeLoader
    yaml:load yaml:unsafe_load zipfile:ZipFile zipimport:zipimporter zmq:Context
    """
    )
)

# What torch.load(weights_only=True) refuses, trainers' own classes among it: nothing is
# known of them, so they are reported, and stop nobody.
UNKNOWN = sorted(
    names_in(
        """
    __main__:Config __main__:Model.Config accelerate.utils.dataclasses:DeepSpeedPlugin
    addict.addict:Dict apex.fp16_utils.loss_scaler:DynamicLossScaler
    deepspeed.runtime.fp16.loss_scaler:LossScaler
    deepspeed.runtime.zero.config:ZeroStageEnum detectron2.config.config:CfgNode
    e3nn.o3._irreps:Irreps easydict:EasyDict esm.data:Alphabet
    fairseq.data.dictionary:Dictionary fairseq.dataclass.configs:FairseqConfig
    gymnasium.spaces.box:Box lightning.pytorch.callbacks.early_stopping:EarlyStopping
    megatron.core.enums:ModelType ml_collections.config_dict.config_dict:ConfigDict
    mmengine.config.config:ConfigDict mmengine.logging.history_buffer:HistoryBuffer
    models.common:Conv models.yolo:Model monai.data.meta_obj:MetaObj munch:Munch
    my_project.code:Codebook my_project.operator:FourierOperator
    my_project.platform:Settings my_project.types:Batch
    pandas.core.frame:DataFrame pandas.core.indexes.base:Index
    peft.tuners.lora.config:LoraConfig peft.utils.peft_types:PeftType project.system:Net
    pytorch_lightning.callbacks.model_checkpoint:ModelCheckpoint
    sklearn.preprocessing._data:StandardScaler sklearn.preprocessing._label:LabelEncoder
    stable_baselines3.common.policies:ActorCriticPolicy timm.data.loader:PrefetchLoader
    timm.layers.mlp:Mlp timm.models.vision_transformer:VisionTransformer
    tokenizers:Tokenizer torch._C._nn:gelu torch.ao.nn.quantized.modules.linear:Linear
    torch.distributed.fsdp.fully_sharded_data_parallel:FullyShardedDataParallel
    torch.distributions.normal:Normal torch.nn.functional:gelu
    torch.nn.parallel.data_parallel:DataParallel
    torch.nn.utils.parametrizations:_WeightNorm
    torch.quantization.observer:MinMaxObserver torch.utils.data.dataloader:DataLoader
    torch:relu torch:sigmoid torchvision.models.resnet:BasicBlock
    torchvision.models.resnet:ResNet torchvision.ops.misc:FrozenBatchNorm2d
    train.config:TrainConfig transformers.activations:GELUActivation
    transformers.integrations.deepspeed:HfTrainerDeepSpeedConfig
    transformers.models.bert.configuration_bert:BertConfig
    transformers.models.bert.modeling_bert:BertModel
    transformers.models.gpt2.modeling_gpt2:GPT2LMHeadModel
    transformers.trainer_callback:TrainerState ultralytics.nn.modules.conv:Conv
    ultralytics.nn.tasks:DetectionModel yacs.config:CfgNode
    """
    )
)

# What real checkpoints hold beside weights, and is no more than data.
INERT = sorted(
    names_in(
        """
    _codecs:encode _io:BytesIO argparse:Namespace builtins:ValueError builtins:complex
    builtins:set builtins:type collections:Counter collections:OrderedDict
    collections:defaultdict collections:deque copyreg:__newobj__ copyreg:_reconstructor
    datetime:datetime datetime:timedelta decimal:Decimal enum:Enum fractions:Fraction
    functools:partial ipaddress:IPv4Address
    lightning_fabric.utilities.data:AttributeDict logging:getLogger
    numpy._core.multiarray:scalar numpy.core.multiarray:_reconstruct
    numpy.core.multiarray:scalar numpy.random._mt19937:MT19937
    numpy.random._pickle:__bit_generator_ctor numpy.random._pickle:__randomstate_ctor
    numpy:dtype numpy:float64 numpy:ndarray omegaconf.base:ContainerMetadata
    omegaconf.dictconfig:DictConfig omegaconf.listconfig:ListConfig
    omegaconf.nodes:AnyNode pathlib._local:PosixPath pathlib:PosixPath
    pathlib:WindowsPath pytorch_lightning.utilities.parsing:AttributeDict random:Random
    torch._tensor:_rebuild_from_type_v2 torch._utils:_rebuild_parameter
    torch._utils:_rebuild_tensor_v2 torch.amp.grad_scaler:GradScaler
    torch.cuda.amp.grad_scaler:GradScaler torch.cuda:FloatStorage
    torch.distributed._mesh_layout:_MeshLayout
    torch.distributed._shard.metadata:ShardMetadata
    torch.distributed._shard.sharded_tensor.api:ShardedTensor
    torch.distributed._shard.sharded_tensor.api:ShardedTensor.ProcessGroupState
    torch.distributed.device_mesh:DeviceMesh
    torch.distributed.tensor._dtensor_spec:DTensorSpec
    torch.distributed.tensor._dtensor_spec:TensorMeta
    torch.distributed.tensor.placement_types:Replicate
    torch.distributed.tensor.placement_types:Shard torch.distributed.tensor:DTensor
    torch.nn.modules.activation:MultiheadAttention torch.nn.modules.container:Sequential
    torch.nn.modules.linear:Linear torch.nn.parameter:Parameter torch.optim.adam:Adam
    torch.optim.adamw:AdamW torch.optim.lr_scheduler:LambdaLR
    torch.optim.swa_utils:AveragedModel torch.storage:UntypedStorage
    torch.torch_version:TorchVersion torch:FloatStorage torch:Generator torch:Size
    torch:bfloat16 torch:channels_last torch:device torch:float32 torch:float8_e4m3fn
    torch:per_tensor_affine torch:strided transformers.trainer_utils:IntervalStrategy
    transformers.training_args:TrainingArguments types:SimpleNamespace typing:Any
    typing:Optional uuid:UUID zoneinfo:ZoneInfo
    """
    )
)


def verdict(name: str) -> Verdict:
    module, _, rest = name.partition(":")
    return judge(module, rest)


@pytest.mark.parametrize("name", GADGETS)
def test_what_runs_code_is_dangerous_however_it_is_reached(name: str) -> None:
    assert verdict(name) is Verdict.DANGEROUS


def test_the_corpus_of_gadgets_is_large() -> None:
    assert len(GADGETS) > 400


@pytest.mark.parametrize("name", UNKNOWN)
def test_somebody_s_own_class_is_reported_and_stops_nobody(name: str) -> None:
    assert verdict(name) is Verdict.UNKNOWN


@pytest.mark.parametrize("name", INERT)
def test_what_is_known_to_be_data_passes(name: str) -> None:
    assert verdict(name) is Verdict.HARMLESS


@pytest.mark.parametrize("text", ["a b", "a\nb", "é", "", " ", "a\0b"])
def test_no_odd_name_is_harmless(text: str) -> None:
    for module, name in (
        (text, "x"),
        ("torch", text),
        ("torch.nn.modules.linear", text),
    ):
        assert judge(module, name) is not Verdict.HARMLESS


def test_what_torch_s_own_safe_loading_accepts_is_no_danger() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    stopped = []
    for name in _get_allowed_globals():
        module, _, rest = name.rpartition(".")
        if judge(module, rest) is Verdict.DANGEROUS:
            stopped.append(name)
    assert stopped == []


def listed_as_whole_modules() -> Iterator[tuple[str, str, Any]]:
    """Whatever this torch has in the modules that are listed as a whole."""
    for package in (torch.nn.modules, torch.optim):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                yield found.name, name, value


def test_all_that_is_harmless_in_torch_s_modules_is_inert() -> None:
    """Calling a class of these makes a layer, an optimizer, a container or a hint."""
    inert = (
        torch.nn.Module,
        torch.optim.Optimizer,
        torch.optim.lr_scheduler.LRScheduler,
        torch.Tensor,
        Exception,
        tuple,
        dict,
    )
    homes = names_in(
        """
        typing typing_extensions collections collections.abc builtins torch
        torch.nn.parameter torch.utils.hooks torch.nn.modules._functions
        torch.nn.modules.lazy torch.nn.modules.linear_cross_entropy_options
        torch.autograd.function
        """
    )
    judged = 0
    for module, name, value in listed_as_whole_modules():
        if judge(module, name) is not Verdict.HARMLESS or not callable(value):
            continue
        judged += 1
        known = inspect.isclass(value) and issubclass(value, inert)
        assert known or getattr(value, "__module__", "") in homes, (module, name)
    assert judged > 300
