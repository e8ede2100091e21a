"""What the look into archives takes for computing, and what not, text by text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointError,
    InferenceError,
)
from checkpoint_release.core.trust import NO_TRUST, Trust
from checkpoint_release.runtimes import open as open_module
from checkpoint_release.runtimes import torchscript_check, torchscript_words
from checkpoint_release.runtimes.runtime import Options
from checkpoint_release.runtimes.torch_archive import TorchArchive
from checkpoint_release.runtimes.torch_export_check import torch_export_problems
from checkpoint_release.runtimes.torch_export_expressions import (
    is_expression,
    is_guard,
)
from checkpoint_release.runtimes.torch_export_program import (
    computes,
    program_problems,
    structure_problems,
)
from checkpoint_release.tensors.tensor import MappedFile
from tests.support.containers import Call, Raw, pickled
from tests.support.hostile_archives import Members, packed

# ------------------------------------------------------------------------------
# Symbolic expressions and guards


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "Pow(Symbol('s0'), Integer(64))",
        "Pow(Mul(s0, Add(s1, 1)), 64)",
        "Mul(Pow(s0, Integer(64)), PowByNatural(s1, 64))",
        "FloatPow(s0, Half())",
        "Pow(s0, Rational(1, 2))",
        "Pow(s0, -1)",
        "s0**64 * s1**64",
        "s0 ** 2",
        "LShift(1, 12)",
        "1 << 12",
        "Pow(s0, Float('2.5'))",
    ],
)
def test_expressions_of_shapes_only_compute(text: str) -> None:
    assert is_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "s0.__class__",
        "s0[0]",
        "lambda: 0",
        "open('file')",
        "Symbol('a b')",
        "Symbol('x\\ny')",
        "Pow(2, s0)",
        "Pow(2)",
        "Pow(2, )",
        "Pow((2, 3))",
        "Pow(s0), 2",
        "Pow(2, 9999)",
        "Pow(2, 100)",
        "2**s0",
        "2 ** 100",
        "Pow(Pow(2, 64), 65)",
        "Pow(s0, Integer(64)) * s1**65",
        "2**17*3**16*5**16",
        "1 << s0",
        "LShift(1, s0)",
        "FloatPow(2, x)",
        "(" * 91 + "s0" + ")" * 91,
    ],
)
def test_other_python_and_large_powers_are_no_expressions(text: str) -> None:
    assert not is_expression(text)


def test_expressions_are_short_and_flat() -> None:
    assert is_expression("(" * 90 + "s0" + ")" * 90)
    assert is_expression("+" * 20_000)
    assert not is_expression("+" * 20_001)
    assert is_expression("(s0)" * 91), "one beside the other"
    assert is_expression("2**16*3**16*5**16"), "4096 together"


@pytest.mark.parametrize(
    ("text", "compares"),
    [
        ("L['x'].size()[0] <= 64", True),
        ("L['args'][0][1].stride()[2] == 4 and not L['y'].item() > 2", True),
        ("math.ceil(L['x'].size()[0] / 2) < 5", True),
        ("L['x'].storage_offset() % 2 == 0", True),
        ("L['x'].size()[0] ** 2 <= 64", True),
        ("L['x'].__class__", False),
        ("L['x'].size()[0] <= open('f')", False),
        ("math.factorial(9)", False),
        ("G['x']", False),
        ("L['x'].size()[0] ** L['y'].size()[0] < 2", False),
    ],
)
def test_guards_compare_sizes_and_do_nothing_else(text: str, compares: bool) -> None:
    assert is_guard(text) is compares


# ------------------------------------------------------------------------------
# The program of a .pt2


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add.Tensor",
        "torch.ops.quantized.add.default",
        "torch.sym_max",
        "_operator.mul",
        "math.ceil",
    ],
)
def test_operators_that_only_compute_need_no_trust(target: str) -> None:
    assert computes(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add",
        "torch.ops.aten.add.__class__",
        "torch.ops.aten.add.a b",
        "torch.ops.aten.from_file.default",
        "torch.ops.mine.add.default",
        "torch.ops.quantized_decomposed.add.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.load",
        "_operator.call",
        "math.factorial",
        "os.system",
        "builtins.eval",
        "",
    ],
)
def test_operators_that_are_not_known_to_compute_need_trust(target: str) -> None:
    assert not computes(target)


def structure(kind: Any, context: Any, *children: Any) -> str:
    node = {"type": kind, "context": context, "children_spec": list(children)}
    return json.dumps([1, node])


LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def default_of(module: str, name: str, context: str = '["a"]') -> str:
    parts = {
        "default_factory_module": module,
        "default_factory_name": name,
        "dict_context": context,
    }
    return structure("collections.defaultdict", parts, LEAF)


@pytest.mark.parametrize(
    "text",
    [
        "",
        structure("builtins.dict", '["a", "b.c/d-e f"]', LEAF, LEAF),
        structure("builtins.tuple", "null", LEAF),
        structure("builtins.list", None),
        structure("builtins.dict", "[1, true, 0.5, null]", LEAF),
        structure("collections.namedtuple", "their.Pair", LEAF),
        *(
            default_of("builtins", name)
            for name in ("dict", "float", "int", "list", "set", "str", "tuple")
        ),
    ],
)
def test_containers_of_inputs_need_no_trust(text: str) -> None:
    assert list(structure_problems(text)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (default_of("os", "list"), "its inputs or outputs call os.list"),
        (default_of("builtins", "eval"), "its inputs or outputs call builtins.eval"),
        (default_of("builtins", "list", '["a\'"]'), "its inputs or outputs have the"),
        (structure("os.system", "null"), "its inputs or outputs are of the type 'os."),
        (structure(None, "null"), "its inputs or outputs are of the type None"),
        (structure("builtins.dict", '["a\']"]'), "its inputs or outputs have the keys"),
        (structure("builtins.dict", '"(x)"'), "its inputs or outputs have the keys"),
        (structure("builtins.dict", '[["a"]]'), "its inputs or outputs have the keys"),
        (structure("collections.namedtuple", "a(b)"), "its inputs or outputs have the"),
        (structure("builtins.dict", "[", LEAF), "it has inputs or outputs of the str"),
        (default_of("builtins", "list", "["), "it has inputs or outputs of the struct"),
        (structure("builtins.list", "null", {}), "it has inputs or outputs of the st"),
        ("[]", "it has inputs or outputs of the structure '[]'"),
        ("[" * 100_000, "it has inputs or outputs of the structure"),
    ],
)
def test_other_structures_of_inputs_need_trust(text: str, problem: str) -> None:
    (found,) = structure_problems(text)
    assert found.startswith(problem)


def test_a_structure_deep_inside_is_looked_at() -> None:
    inner = {"type": "their.Type", "context": "null", "children_spec": []}
    outer = {"type": "builtins.list", "context": "null", "children_spec": [LEAF, inner]}
    (found,) = structure_problems(json.dumps([1, outer]))
    assert "their.Type" in found


@pytest.mark.parametrize(
    ("program", "problems"),
    [
        ({"nodes": [{"target": "torch.ops.aten.add.Tensor"}]}, []),
        ({"nodes": [{"target": "os.system"}]}, ["it names the operator 'os.system'"]),
        ({"as_operator": "os.system"}, ["it names the operator 'os.system'"]),
        ({"as_expr": {"expr_str": "s0+1"}}, []),
        ({"expr_str": "s0.x"}, ["it has the expression 's0.x'"]),
        ({"guards_code": ["L['x'].item() > 1", "f()"]}, ["it has the guard 'f()'"]),
        ({"name": "x_1", "as_name": ""}, []),
        ({"name": "x y"}, ["it has the name 'x y'"]),
        ({"forward_arg_names": ["a", "b.c"]}, ["it has the name 'b.c'"]),
        ({"anything": "it's"}, ['it has the text "it\'s"']),
        ({"a\nb": 1}, ["it has a name 'a\\nb'"]),
        ({"as_custom_obj": 1}, ["it uses an object of a class of its own"]),
        ({"custom_obj": 1}, ["it uses an object of a class of its own"]),
        ({"range_constraints": {"s0": 1, "u7": 1, "zuf3": 1}}, []),
        ({"range_constraints": {"u'": 1}}, ['it has a symbol "u\'"']),
        ({"nodes": [{"metadata": {"stack": "a 'b'"}}]}, []),
        ({"graph_module": {"metadata": {"stack": "a 'b'"}}}, []),
        ({"nodes": [{"metadata": {"a": ["'"]}}]}, ['it has the text "\'"']),
        ({"other": {"metadata": {"a": "'"}}}, ['it has the text "\'"']),
        ({"nodes": {"inputs": [{"arg": {"as_string": "a 'b'"}}]}}, []),
        ({"inputs": [{"arg": {"as_string": "'"}}]}, ['it has the text "\'"']),
        ({"in_spec": "[]"}, ["it has inputs or outputs of the structure '[]'"]),
        ([[{"out_spec": "[]"}]], ["it has inputs or outputs of the structure '[]'"]),
        ("it's", ['it has the text "it\'s"']),
    ],
)
def test_each_text_of_a_program_has_the_form_of_its_key(
    program: Any, problems: list[str]
) -> None:
    assert list(program_problems(program)) == problems


def test_what_is_shown_of_a_text_is_short() -> None:
    for program in ({"name": "x" * 600}, {"target": "x" * 600}, {"x\n" * 300: 1}):
        (found,) = program_problems(program)
        assert len(found) < 120


# ------------------------------------------------------------------------------
# The members of a .pt2


def config(*payloads: Any) -> bytes:
    listed = {str(number): payload for number, payload in enumerate(payloads)}
    return json.dumps({"config": listed}).encode()


def payload(path: Any, pickled: bool) -> dict[str, Any]:
    return {"path_name": path, "use_pickle": pickled}


def problems_of(folder: Path, content: Members) -> list[str]:
    file = folder / "model.pt2"
    file.write_bytes(packed(content))
    return torch_export_problems(TorchArchive(MappedFile.of_file(file)))


def honest() -> Members:
    """An archive that only computes, as far as it is looked into."""
    tensors = packed({"weight/data.pkl": pickled({}), "weight/version": b"3"})
    program = {"graph_module": {"graph": {"nodes": [{"target": "math.ceil"}]}}}
    return {
        "model/archive_format": b"pt2",
        "model/models/model.json": json.dumps(program).encode(),
        "model/data/weights/model_weights_config.json": config(),
        "model/data/weights/weight_0": b"numbers",
        "model/data/sample_inputs/model.pt": tensors,
    }


def with_member(name: str, data: bytes) -> Members:
    """The archive with one more member."""
    return {**honest(), f"model/{name}": data}


HARMFUL = pickled(Call("os.system", "true"))
CONFIG, WEIGHT = "data/weights/other_config.json", "data/weights/weight_77"


def test_an_honest_archive_and_its_texts_need_no_trust(tmp_path: Path) -> None:
    assert problems_of(tmp_path, honest()) == []
    for name in ("extra/config.json", ".data/version", "byteorder", "archive_version"):
        assert problems_of(tmp_path, with_member(name, b"3")) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("data/aotinductor/model/model.so", "it holds "),
        ("code.py", "it holds "),
        ("data/weights/custom_obj_0", "it holds an object ("),
        ("data/constants/opaque_obj_0", "it holds an object ("),
    ],
)
def test_members_of_other_kinds_need_trust(
    tmp_path: Path, name: str, problem: str
) -> None:
    (found,) = problems_of(tmp_path, with_member(name, b"x"))
    assert found.startswith(problem) and name in found


@pytest.mark.parametrize(
    "name",
    [
        "data/sample_inputs/other.pt",
        "data/weights/weight_77.pt",
        "data/constants/tensor_77.pt",
        "serialized_state_dict.pt",
    ],
)
def test_members_that_torch_unpickles_are_archives_of_tensors_or_empty(
    tmp_path: Path, name: str
) -> None:
    assert problems_of(tmp_path, with_member(name, b"")) == []
    (bare,) = problems_of(tmp_path, with_member(name, HARMFUL))
    assert bare.endswith("is no archive of torch.save") and name in bare
    saved = packed({"a/data.pkl": HARMFUL, "a/version": b"3"})
    (found,) = problems_of(tmp_path, with_member(name, saved))
    assert found.endswith("makes os.system") and name in found


def test_a_weight_is_a_pickle_where_its_configuration_says_so(tmp_path: Path) -> None:
    def found(pickled: bool) -> list[str]:
        content = with_member(WEIGHT, HARMFUL)
        listed = config(payload("other", False), payload("Weight_77", pickled))
        content[f"model/{CONFIG}"] = listed
        return problems_of(tmp_path, content)

    assert found(pickled=False) == []
    (problem,) = found(pickled=True)
    assert problem.endswith("is no archive of torch.save") and WEIGHT in problem
    absent = with_member(CONFIG, config(payload("weight_78", True)))
    assert problems_of(tmp_path, absent) == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[]", "lists no payloads"),
        (b'{"config": 5}', "lists no payloads"),
        (config(5), "names no file None"),
        (config(payload(5, True)), "names no file 5"),
        (config(payload("../x", True)), "names no file '../x'"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff", "is not text"),
    ],
)
def test_a_configuration_that_torch_did_not_write_is_an_error(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        problems_of(tmp_path, with_member(CONFIG, data))
    assert problem in caught.value.problem and CONFIG in caught.value.problem
    assert "export or download it again" in str(caught.value.remedy)


def test_the_program_is_looked_at_in_every_layout(tmp_path: Path) -> None:
    program = json.dumps({"nodes": [{"target": "os.system"}]}).encode()
    expected = ["it names the operator 'os.system'"]
    assert problems_of(tmp_path, with_member("models/other.json", program)) == expected
    old = {"serialized_exported_program.json": program, "version": b"1"}
    assert problems_of(tmp_path, old) == expected


def test_of_many_problems_in_a_member_twenty_are_listed(tmp_path: Path) -> None:
    nodes = [{"target": f"os.{number}"} for number in range(30)]
    program = json.dumps({"nodes": nodes}).encode()
    found = problems_of(tmp_path, with_member("models/other.json", program))
    assert len(found) == 20


# ------------------------------------------------------------------------------
# TorchScript's code

OPERATORS = torchscript_check.Operators(frozenset({"add", "save"}), frozenset({"add"}))


def of_code(*lines: str) -> list[str]:
    code = "\n".join(lines) + "\n"
    return list(torchscript_check.program_problems(code.encode(), OPERATORS))


def unknown(name: str) -> str:
    return f"it uses {name!r}, which is not known here"


def test_names_that_a_statement_gives_are_known_behind_it() -> None:
    assert of_code("with a_lock as held:", "  x = held") == [unknown("a_lock")]
    assert of_code("with torch.x as (held):", "  y = held") == [unknown("held")] * 2
    assert of_code("x = 1", "y = x", "z = w") == [unknown("w")]
    assert of_code("def f(self, x: Tensor, *, k=1):", "  return x") == []
    assert of_code("for (a, b) in zip([1], [2]):", "  x = a") == []
    assert of_code("f(other=1)") == [unknown("f")]


def test_names_are_out_of_sight_in_the_next_function() -> None:
    inside = of_code("def f(self, x: Tensor):", "  return x", "def g(self):", "  x")
    assert inside == [unknown("x")]
    forked = of_code("def f(self, x: Tensor):", "  def g():", "    return x")
    assert forked == []


def test_operators_and_roots_are_held_against_the_lists() -> None:
    assert of_code("y = torch.add(1, 2)", "z = ops.aten.add(1)") == []
    assert of_code("y = torch.save(1)") == ["it names the operator torch.save"]
    assert of_code("x = 1", "y = x.save") == [], "a value has no such method"
    assert of_code("o = ops.mine.add(1)") == ["it names the operator ops.mine.add"]
    assert of_code("o = ops.aten") == ["it names the operator ops.aten"]
    assert of_code("t = torch") == ["it gives torch another name"]
    assert of_code("t = torch.autograd") == ["it gives torch.autograd another name"]
    assert of_code('x = getattr(1, "save")') == ['it looks up "save"']
    assert of_code('x = hasattr(1, "add")') == []
    assert of_code("c = __torch__.torch.classes.mine.Box") == [
        "it uses the class torch.classes.mine.Box"
    ]
    assert of_code("c = __torch__.torch.classes.quantized.Linear") == []
    assert of_code("rpc_sync = 1") == [unknown("rpc_sync")]


def test_of_a_dotted_name_every_part_is_shown() -> None:
    assert of_code("x = torch.a.b.save.c") == ["it names the operator torch.a.b.save.c"]
    assert of_code("x = 1 + torch.save(2)") == ["it names the operator torch.save"]
    assert of_code("y = [torch.add, torch.a.save]") == [
        "it names the operator torch.a.save"
    ]


def read(*lines: str) -> list[list[str]]:
    """The words of each statement."""
    found = torchscript_words.statements("\n".join(lines).encode())
    return [[word.text for word in statement] for statement in found]


def test_a_statement_ends_with_its_line_outside_of_brackets() -> None:
    assert read("x = f(1,", "  2)  # why", "", "y=.5e-3", "  'a # b'  ") == [
        ["x", "=", "f", "(", "1", ",", "2", ")"],
        ["y", "=", ".5e-3"],
        ["'a # b'"],
    ]
    assert read("x == y", "a -> b ** c // 1j") == [
        ["x", "==", "y"],
        ["a", "->", "b", "**", "c", "//", "1j"],
    ]
    assert read("") == [] and read("# alone") == []
    assert read(") x", "y") == [[")", "x"], ["y"]], "depth isn't below none"


@pytest.mark.parametrize(
    "code",
    [
        "(" * 200 + ")" * 200,
        "+ " * 4000,
        ("+ " * 3999 + ", ") * 3,
        "x\nelif\n" * 1000,
        " " * 1000 + "x",
        "# " + "x" * 3000,
        "x\n" * 9000,
    ],
    ids=lambda code: code[:5],
)
def test_what_torch_writes_is_within_the_limits(code: str) -> None:
    read(code)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("(" * 201, "it is nested too deeply"),
        ("+ " * 4001, "it is nested too deeply"),
        ("elif\n" * 1001, "it is nested too deeply"),
        (" " * 1001 + "x", "a word has 1001 characters"),
        ("x = b'a'", "a text has a prefix at character 5"),
        ("x = $y" + "z" * 99, "'$y" + "z" * 38 + "' is no word of TorchScript"),
        ("x = 'a", '"\'a" is no word of TorchScript'),
        ("x = 1a", "'1a' is no word of TorchScript"),
        ("x = é", "byte 4 is b'\\xc3', which torch doesn't write there"),
        ("x\ry", "byte 1 is b'\\r', which torch doesn't write there"),
        ("x = '\\x1b'", "byte 5 is b'\\\\x1b', which torch doesn't write there"),
        ("x = '\\x1B'", "byte 5 is b'\\\\x1B', which torch doesn't write there"),
        ("x = '\\033'", "byte 5 is b'\\\\033', which torch doesn't write there"),
    ],
    ids=lambda text: text[:40],
)
def test_what_torch_does_not_write_cannot_be_read(code: str, problem: str) -> None:
    with pytest.raises(torchscript_words.UnreadableProgramError) as caught:
        read(code)
    assert str(caught.value) == problem
    found = list(torchscript_check.program_problems(code.encode(), OPERATORS))
    assert found[-1] == f"its code can't be understood without running it: {problem}"


def test_a_word_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchscript_words.MAX_WORD == 1 << 20
    monkeypatch.setattr(torchscript_words, "MAX_WORD", 9)
    assert read("'1234567'") == [["'1234567'"]]
    with pytest.raises(torchscript_words.UnreadableProgramError, match="10 charac"):
        read("'12345678'")


# ------------------------------------------------------------------------------
# The members of a TorchScript archive


def of_torchscript(folder: Path, content: Members) -> list[str]:
    file = folder / "model.pt"
    file.write_bytes(packed(content))
    archive = TorchArchive(MappedFile.of_file(file))
    return torchscript_check.torchscript_problems(archive, OPERATORS)


def test_code_and_pickles_of_torchscript_are_looked_into(tmp_path: Path) -> None:
    def found(name: str, data: bytes) -> list[str]:
        return of_torchscript(tmp_path, {"m/version": b"3", f"m/{name}": data})

    assert found("code/a.py", b"x = 1\n") == []
    assert found("code/a.py", b"x = y\n") == [unknown("y")]
    assert found("extra/a.py", b"x = y\n") == []
    assert found("data.pkl", pickled({})) == []
    for name in ("data.pkl", "code/a.debug_pkl"):
        assert found(name, HARMFUL) == [f"m/{name} makes os.system"]
    own = pickled([Call("__torch__.Net"), Call("__torch__.torch.classes.rnn.Cell")])
    assert found("data.pkl", own) == []
    foreign = pickled(Call("__torch__.torch.classes.mine.Box"))
    assert len(found("data.pkl", foreign)) == 1
    assert found("model.json", b"") == [
        "it is of torch 1.0, whose archives are read another way"
    ]
    many = b"".join(b"y%d\n" % number for number in range(30))
    assert len(found("code/a.py", many)) == 20


def test_the_code_of_an_archive_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"m/code/a.py": b"x = 1\n", "m/code/b.py": b"y = 1\n"}
    monkeypatch.setattr(torchscript_check, "MAX_CODE", 12)
    assert of_torchscript(tmp_path, content) == []
    monkeypatch.setattr(torchscript_check, "MAX_CODE", 11)
    assert of_torchscript(tmp_path, content) == ["its code has more than 11 bytes"]


def nest(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_pickle_that_torch_could_not_read_is_an_error(tmp_path: Path) -> None:
    def found(value: Any) -> list[str]:
        return of_torchscript(tmp_path, {"m/data.pkl": pickled(value)})

    assert found([nest(100), 5, {"a": (nest(100),)}]) == []
    with pytest.raises(CheckpointError, match="nested too deeply"):
        deep = b"]" * 600 + b"a" * 599
        found([Raw(deep), [], []])


def test_an_archive_that_could_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    for content, problem in (
        ({"a/x": b"", "b/y": b""}, "its entries lie in more than one folder"),
        ({"a/x": b"", "a/X": b""}, "two of its entries are 'x' to torch"),
        ({"a/x": b"", "x": b""}, "two of its entries are 'x' to torch"),
    ):
        with pytest.raises(CheckpointError) as caught:
            of_torchscript(tmp_path, content)
        assert caught.value.problem == problem
    assert of_torchscript(tmp_path, {"a/x": b"", "y": b""}) == []


# ------------------------------------------------------------------------------
# Opening


def test_what_a_user_asks_for_is_handed_on_to_the_format_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, Path, Options]] = []

    def opener(format: str) -> Any:
        return lambda path, options: opened.append((format, path, options))

    monkeypatch.setattr(open_module, "_opener", opener)
    trust = Trust.of(["torchscript"])
    open_module.open_runtime("onnx", tmp_path)
    open_module.open_runtime(
        "torchscript",
        str(tmp_path),
        threads=3,
        device="cuda",
        providers=["One"],
        dtype="float64",
        aligned=False,
        trust=trust,
    )
    assert opened == [
        ("onnx", tmp_path, Options(None, "cpu", None, "own", True, NO_TRUST)),
        (
            "torchscript",
            tmp_path,
            Options(3, "cuda", ["One"], "float64", False, trust),
        ),
    ]
    with pytest.raises(InferenceError, match="there is no format 'pickle'") as caught:
        open_module.open_runtime("pickle", tmp_path)
    assert caught.value.remedy == (
        "choose one of checkpoint, safetensors, onnx, torchscript, torch_export"
    )
    with pytest.raises(ArtifactError, match="nothing is missing"):
        open_module.open_runtime("onnx", tmp_path / "nothing")


@pytest.mark.parametrize("format", open_module.RUNNABLE)
def test_each_format_has_an_opener_of_its_own(format: str) -> None:
    names = {
        "checkpoint": "open_checkpoint",
        "safetensors": "open_safetensors_model",
        "onnx": "open_onnx",
        "torchscript": "open_torchscript",
        "torch_export": "open_torch_export",
    }
    assert open_module._opener(format).__name__ == names[format]
