"""TorchScript and .pt2 that do more than compute: each writes a canary when torch opens
or runs it, by a road of its own.

A road is an archive that torch itself wrote, with one thing changed. The canary is a
file; nothing worse is ever written down here.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from checkpoint_release.exporting.tracing import silence_known_warnings
from tests.support.containers import Call, opcodes

Members = dict[str, bytes]
Maker = Callable[[str], bytes]
"""Takes the canary's path, gives an archive."""


class Honest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x) + self.shift)


class SavesWhenLoaded(Honest):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.path, self.shift, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        torch.save(state[1], state[0])
        self.path = state[0]
        self.shift = state[1]
        self.training = state[2]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def scripted(module: nn.Module) -> bytes:
    """What torch.jit.save writes of a module."""
    content = io.BytesIO()
    with silence_known_warnings():
        torch.jit.save(torch.jit.script(module.eval()), content)
    return content.getvalue()


def torchscript() -> Members:
    """The members of an honest TorchScript archive."""
    return members(_scripted_once())


@functools.cache
def _scripted_once() -> bytes:
    return scripted(Honest())


def torch_export() -> Members:
    """The members of an honest .pt2, whose batch is dynamic."""
    return members(exported())


@functools.cache
def exported() -> bytes:
    """What torch.export.save writes of an honest module."""
    content = io.BytesIO()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Honest().eval(), (torch.rand(3, 4),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, content)
    return content.getvalue()


def members(archive: bytes) -> Members:
    """The content of a zip archive by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def packed(content: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, data in content.items():
            opened.writestr(name, data)
    return archive.getvalue()


def named(content: Members, ending: str) -> str:
    """The single name that ends so."""
    (name,) = (name for name in content if name.endswith(ending))
    return name


def in_code(line: str, expression: str = "torch.relu(_0)") -> Maker:
    """TorchScript whose forward has one more line, with PATH for the canary's path."""

    def make(canary: str) -> bytes:
        content = torchscript()
        name = named(content, "/hostile_archives.py")
        code = content[name].decode()
        start = code.rindex("    return torch.relu(")
        value = code[start:].removeprefix("    return ")
        added = f"    y = {value}    {line}\n    return y\n".replace("PATH", canary)
        content[name] = (code[:start] + added).encode()
        return packed(content)

    return make


def saves_when_loaded(canary: str) -> bytes:
    return scripted(SavesWhenLoaded(canary))


def code_in_capitals(canary: str) -> bytes:
    """torch finds members without regard to case."""
    content = members(in_code('torch.save(x, "PATH")')(canary))
    return packed({name.replace("/code/", "/CODE/"): content[name] for name in content})


def torchscript_roads() -> dict[str, Maker]:
    """Name → TorchScript that writes the canary."""
    return {
        "saves_when_it_is_loaded": saves_when_loaded,
        "saves": in_code('torch.save(x, "PATH")'),
        "saves_under_another_name": in_code('f = torch.save\n    f(x, "PATH")'),
        "saves_through_autograd": in_code('torch.autograd.save(x, "PATH")'),
        "saves_through_autograd_under_another_name": in_code(
            'a = torch.autograd\n    a.save(x, "PATH")'
        ),
        "saves_through_autograd_of_autograd": in_code(
            'a = torch.autograd.autograd\n    a.save(x, "PATH")'
        ),
        "saves_through_autograd_of_ops": in_code(
            'a = ops.aten.autograd\n    a.save(x, "PATH")'
        ),
        "saves_in_brackets": in_code('(torch.autograd).save(x, "PATH")'),
        "saves_through_ops_under_another_name": in_code(
            'a = ops.aten\n    a.save(x, "PATH")'
        ),
        "saves_through_ops": in_code('ops.aten.save(x, "PATH")'),
        "saves_with_blanks": in_code('torch . \t save (x, "PATH")'),
        "saves_over_lines": in_code('(torch\n .\n # x\n save(x, "PATH"))'),
        "saves_in_a_list": in_code('z = [torch.save(x, "PATH")]'),
        "saves_in_a_branch": in_code('if True:\n      torch.save(x, "PATH")'),
        "saves_behind_a_text": in_code(
            "z = '''it's'''\n    torch.save(x, \"PATH\")\n    w = '#'"
        ),
        "maps_a_file": in_code(
            'z = torch.from_file("PATH", True, 4)\n    y = torch.add(y, z)'
        ),
        "calls_a_custom_operator": in_code('y = ops.hostile.leave(y, "PATH")'),
        "code_in_capitals": code_in_capitals,
    }


def edited(change: Callable[[dict[str, Any], str], None]) -> Maker:
    """A .pt2 whose program was changed."""

    def make(canary: str) -> bytes:
        content = torch_export()
        name = named(content, "models/model.json")
        program = json.loads(content[name])
        change(program, canary)
        content[name] = json.dumps(program).encode()
        return packed(content)

    return make


def with_members(change: Callable[[Members, str, str], None]) -> Maker:
    """A .pt2 whose members were changed; the second argument is its root folder."""

    def make(canary: str) -> bytes:
        content = torch_export()
        root = next(iter(content)).partition("/")[0]
        change(content, root, canary)
        return packed(content)

    return make


def leaving(canary: str) -> Call:
    """What leaves the canary when it is unpickled."""
    return Call("builtins.open", canary, "w")


def evil_checkpoint(canary: str) -> bytes:
    """A checkpoint of torch.save that leaves the canary."""
    data = b"\x80\x02" + opcodes((leaving(canary),)) + b"."
    return packed({"archive/data.pkl": data, "archive/version": b"3\n"})


def sample_inputs(content: Members, root: str, canary: str) -> None:
    content[f"{root}/data/sample_inputs/model.pt"] = evil_checkpoint(canary)


def old_pickle(content: Members, root: str, canary: str) -> None:
    """torch.load takes the format of before torch 1.6 as well."""
    content[f"{root}/data/sample_inputs/model.pt"] = (
        b"\x80\x02" + opcodes(leaving(canary)) + b"."
    )


def torchscript_inside(content: Members, root: str, canary: str) -> None:
    """torch.load hands TorchScript to torch.jit.load."""
    content[f"{root}/data/sample_inputs/model.pt"] = saves_when_loaded(canary)


def old_weights(content: Members, root: str, canary: str) -> None:
    content[f"{root}/data/weights/model.pt"] = evil_checkpoint(canary)


def old_constants(content: Members, root: str, canary: str) -> None:
    content[f"{root}/data/constants/model.pt"] = evil_checkpoint(canary)


def second_model(content: Members, root: str, canary: str) -> None:
    """All models of an archive are loaded."""
    for kind in ("weights", "constants"):
        config = content[f"{root}/data/{kind}/model_{kind}_config.json"]
        content[f"{root}/data/{kind}/other_{kind}_config.json"] = config
    content[f"{root}/models/other.json"] = content[f"{root}/models/model.json"]
    content[f"{root}/data/sample_inputs/other.pt"] = evil_checkpoint(canary)


def in_capitals(content: Members, root: str, canary: str) -> None:
    del content[f"{root}/data/sample_inputs/model.pt"]
    content[f"{root}/DATA/sample_inputs/MODEL.pt"] = evil_checkpoint(canary)


def payload(kind: str, path: str, data: Callable[[str], bytes]) -> Maker:
    """A .pt2 with one more weight or constant, which is pickled."""

    def change(content: Members, root: str, canary: str) -> None:
        name = f"{root}/data/{kind}/model_{kind}_config.json"
        config = json.loads(content[name])
        meta = {"path_name": path, "is_param": False, "use_pickle": True}
        config["config"]["more"] = {**meta, "tensor_meta": None}
        content[name] = json.dumps(config).encode()
        content[f"{root}/data/{kind}/{path}"] = data(canary)

    return with_members(change)


def unpickled(canary: str) -> bytes:
    return b"\x80\x02" + opcodes(leaving(canary)) + b"."


def script_object(canary: str) -> bytes:
    """An object of a TorchScript class, which is loaded with its code."""
    return saves_when_loaded(canary)


def before_2_8(canary: str) -> bytes:
    """The layout of torch 2.7, without a folder and an archive_format."""
    content = torch_export()
    program = content[named(content, "models/model.json")]
    version = json.loads(program)["schema_version"]
    return packed(
        {
            "version": f"{version['major']}.{version['minor']}".encode(),
            "serialized_exported_program.json": program,
            "serialized_state_dict.pt": evil_checkpoint(canary),
            "serialized_constants.pt": evil_checkpoint(canary),
            "serialized_example_inputs.pt": evil_checkpoint(canary),
        }
    )


def expression(program: dict[str, Any], canary: str) -> None:
    code = f"__import__('builtins').open('{canary}', 'w')"
    meta = program["graph_module"]["graph"]["tensor_values"]["x"]
    meta["sizes"][0]["as_expr"]["expr_str"] = code


def expression_of_words(program: dict[str, Any], canary: str) -> None:
    """sympy evaluates texts within texts."""
    inner = f"__import__('builtins').open('{canary}', 'w')"
    code = f'S("{inner}")'
    meta = program["graph_module"]["graph"]["tensor_values"]["x"]
    meta["sizes"][0]["as_expr"]["expr_str"] = code


def tensor_called_metadata(program: dict[str, Any], canary: str) -> None:
    """Metadata of nodes aren't evaluated, but a tensor can be called so."""
    expression(program, canary)
    graph = program["graph_module"]["graph"]
    graph["tensor_values"]["metadata"] = graph["tensor_values"].pop("x")
    text = json.dumps(program["graph_module"])
    text = text.replace('{"name": "x"}', '{"name": "metadata"}')
    program["graph_module"] = json.loads(text)


def guard(program: dict[str, Any], canary: str) -> None:
    program["guards_code"] = [f"open('{canary}', 'w') is not None"]


def node_name(program: dict[str, Any], canary: str) -> None:
    """Names of nodes become names in Python code."""
    name = f"relu = open('{canary}', 'w'); relu"
    text = json.dumps(program).replace('"relu"', json.dumps(name))
    program.update(json.loads(text))


def argument_name(program: dict[str, Any], canary: str) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x=open('{canary}', 'w')"]


def keyword(program: dict[str, Any], canary: str) -> None:
    """Names of keyword arguments become names in Python code as well."""
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = None
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    key = f"x': (None if open('{canary}', 'w') else None), 'y"
    keywords = {
        "type": "builtins.dict",
        "context": json.dumps([key]),
        "children_spec": [leaf],
    }
    both = {**arguments, "children_spec": [arguments, keywords]}
    signature["in_spec"] = json.dumps([1, both])


def constant_input(program: dict[str, Any], canary: str) -> None:
    """A text that the program was exported for becomes part of a guard."""
    graph = program["graph_module"]["graph"]
    text = f"' or open('{canary}', 'w') or '"
    graph["inputs"].append({"as_string": text})


def enum_of_a_module(program: dict[str, Any], canary: str) -> None:
    """An enum among the keys is imported."""
    named_module = {
        "__enum__": True,
        "fqn": "tests.support.leaves_canary:Enum",
        "name": "x",
    }
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    out = {
        "type": "builtins.dict",
        "context": json.dumps([named_module]),
        "children_spec": [leaf],
    }
    signature["out_spec"] = json.dumps([1, out])


def default_factory(program: dict[str, Any], canary: str) -> None:
    """The default factory of a defaultdict is imported."""
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    context = {
        "default_factory_module": "tests.support.leaves_canary",
        "default_factory_name": "Enum",
        "dict_context": ["x"],
    }
    out = {
        "type": "collections.defaultdict",
        "context": context,
        "children_spec": [leaf],
    }
    signature["out_spec"] = json.dumps([1, out])


def target(name: str, *texts: str) -> Maker:
    """A .pt2 whose last node calls something else, with texts and the canary's path."""

    def change(program: dict[str, Any], canary: str) -> None:
        node = program["graph_module"]["graph"]["nodes"][-1]
        node["target"] = name
        values = [text.replace("PATH", canary) for text in texts]
        node["inputs"] = [
            {"name": "", "arg": {"as_string": value}, "kind": 1} for value in values
        ]

    return edited(change)


def custom_operator(program: dict[str, Any], canary: str) -> None:
    node = program["graph_module"]["graph"]["nodes"][-1]
    node["target"] = "torch.ops.hostile.leave.default"
    node["inputs"].append({"name": "path", "arg": {"as_string": canary}, "kind": 1})
    node["inputs"][0]["name"] = "x"


def mapped_file(program: dict[str, Any], canary: str) -> None:
    graph = program["graph_module"]["graph"]
    inputs = [
        {"name": "filename", "arg": {"as_string": canary}, "kind": 1},
        {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
        {"name": "size", "arg": {"as_int": 4}, "kind": 1},
    ]
    made = {**graph["nodes"][-1], "target": "torch.ops.aten.from_file.default"}
    made |= {"inputs": inputs, "name": "mapped", "metadata": {}}
    made["outputs"] = [{"as_tensor": {"name": "mapped"}}]
    graph["tensor_values"]["mapped"] = (
        graph["tensor_values"]["b_shift"]
        if ("b_shift" in graph["tensor_values"])
        else next(iter(graph["tensor_values"].values()))
    )
    graph["nodes"].insert(0, made)
    graph["nodes"][-1]["target"] = "torch.ops.aten.add.Tensor"
    graph["nodes"][-1]["inputs"].append(
        {"name": "other", "arg": {"as_tensor": {"name": "mapped"}}, "kind": 1}
    )


def torch_export_roads() -> dict[str, Maker]:
    """Name → .pt2 that writes the canary."""
    return {
        "sample_inputs": with_members(sample_inputs),
        "sample_inputs_of_old_torch": with_members(old_pickle),
        "sample_inputs_in_capitals": with_members(in_capitals),
        "torchscript_as_sample_inputs": with_members(torchscript_inside),
        "weights_of_torch_2_8": with_members(old_weights),
        "constants_of_torch_2_8": with_members(old_constants),
        "second_model": with_members(second_model),
        "pickled_weight": payload("weights", "weight_9", evil_checkpoint),
        "pickled_constant": payload("constants", "tensor_9", evil_checkpoint),
        "pickled_object": payload("constants", "opaque_obj_0", unpickled),
        "layout_of_torch_2_7": before_2_8,
        "expression": edited(expression),
        "expression_in_a_text": edited(expression_of_words),
        "expression_of_a_tensor_called_metadata": edited(tensor_called_metadata),
        "guard": edited(guard),
        "enum": edited(enum_of_a_module),
        "default_factory": edited(default_factory),
        "custom_operator": edited(custom_operator),
        "mapped_file": edited(mapped_file),
    }


def shut_roads() -> dict[str, Maker]:
    """Name → .pt2 that would write the canary, if torch 2.13 didn't fail on it before.

    What it fails on may change, and so might the text that gets through.
    """
    return {
        "script_object": payload("constants", "custom_obj_0", script_object),
        "name_of_a_node": edited(node_name),
        "name_of_an_argument": edited(argument_name),
        "name_of_a_keyword": edited(keyword),
        "constant_input": edited(constant_input),
        "os_in_torch": target("torch.os.mkdir", "PATH"),
        "os_through_modules": target("torch.functional.torch.os.mkdir", "PATH"),
    }


def roads() -> dict[str, dict[str, Maker]]:
    """Format → name → what makes the archive."""
    return {"torchscript": torchscript_roads(), "torch_export": torch_export_roads()}
