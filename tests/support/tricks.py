"""Small files that ask for much: memory, time, a crash, or a silent loss.

Each one is a whole checkpoint (or safetensors file) with what has to come of it. They
are kept small, since what counts is how the cost grows; `scale` makes them larger for
the bench.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
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

BUDGET = "exceeded"
READ = ""  # no error: the file is read

Trick = tuple[bytes, str]
"""A file, and a part of the error that reading, converting or writing it ends in."""


def tricks(scale: int = 1) -> dict[str, Trick]:
    """Name → trick."""
    found: dict[str, Trick] = {}
    for group in (
        _repetition,
        _collisions,
        _texts_and_numbers,
        _containers,
        _recursion,
        _shapes,
        _archives,
        _state_dicts,
        _adapters,
        _facts,
        _silent_losses,
        _safetensors,
    ):
        found |= group(scale)
    return found


def _memo(value: bytes) -> bytes:
    """Opcodes that memorize a value under the next number, and take it off."""
    return value + b"\x940"


def _file(*parts: bytes) -> bytes:
    """A checkpoint of opcodes that follow each other and leave one value."""
    return zipped(b"\x80\x04" + b"".join(parts) + b".")


def _repetition(scale: int) -> dict[str, Trick]:
    """A few bytes that name something large again and again."""
    n = 20_000 * scale
    list_ = _memo(b"](" + b"K\x01" * 5_000 + b"e")
    tuple_ = _memo(b"(" + b"K\x01" * 5_000 + b"t")
    dict_ = _memo(opcodes({str(k): None for k in range(5_000)}))
    text = _memo(opcodes("x" * 50_000))
    accents = _memo(opcodes("é" * 25_000))
    pairs = _memo(b"](" + opcodes(("a", 1)) * 5_000 + b"e")

    def calls(name: str, argument: bytes) -> bytes:
        module, _, attribute = name.rpartition(".")
        function = _memo(opcodes(Name(module, attribute)))
        return function + b"](" + (b"h\x01" + argument + b"R") * n + b"e"

    given = b"h\x00\x85"
    return {
        "calls_of_calls": (_file(b"cx\ny\n", b")R\x94" * 6 * n), BUDGET),
        "keywords_again_and_again": (
            _file(dict_, _memo(b"cx\ny\n"), b"](", b"h\x01)h\x00\x92" * n, b"e"),
            READ,
        ),
        "tuples_of_one_list": (_file(list_, calls("builtins.tuple", given)), BUDGET),
        "sizes_of_one_list": (_file(list_, calls("torch.Size", given)), BUDGET),
        "frozen_sets_of_one_list": (
            _file(list_, calls("builtins.frozenset", given)),
            BUDGET,
        ),
        "dicts_of_one_list": (
            _file(pairs, calls("collections.OrderedDict", given)),
            BUDGET,
        ),
        "default_dicts_of_one_list": (
            _file(pairs, calls("collections.defaultdict", b"Nh\x00\x86")),
            BUDGET,
        ),
        "lists_of_one_list": (_file(list_, calls("builtins.list", given)), "unfolds"),
        "paths_of_one_text": (_file(text, calls("pathlib.PosixPath", given)), BUDGET),
        "paths_joined_of_one_text": (
            _file(text, calls("pathlib.PosixPath", b"(" + b"h\x00" * 60 + b"t")),
            BUDGET,
        ),
        "devices_of_one_text": (
            _file(text, calls("torch.device", b"h\x00K\x01\x86")),
            READ,
        ),
        "bytes_of_one_text": (
            _file(
                text, calls("_codecs.encode", b"h\x00" + opcodes("latin1") + b"\x86")
            ),
            BUDGET,
        ),
        "bytes_of_accents": (
            _file(
                accents, calls("_codecs.encode", b"h\x00" + opcodes("latin1") + b"\x86")
            ),
            BUDGET,
        ),
        "calls_with_one_tuple": (_file(tuple_, calls("x.y", b"h\x00")), BUDGET),
        "decimals_of_one_text": (_file(text, calls("decimal.Decimal", given)), READ),
        "one_list_added_again_and_again": (
            _file(b"]", b"(" + b"K\x01" * 5_000 + b"e", b"2" * n, b"0" * n),
            READ,
        ),
        "records_memorized": (
            _file(b"cx\ny\n)R", b"\x94" * 15 * n),
            BUDGET if scale > 1 else READ,
        ),
        "states_again_and_again": (_file(dict_, b"cx\ny\n)R", b"h\x00b" * n), READ),
        "items_of_one_record": (_file(b"cx\ny\n)R(", b"K\x01" * n, b"e"), READ),
    }


def _collisions(scale: int) -> dict[str, Trick]:
    """Keys that all lead to the same place of a dict's table."""
    n = 40_000 * scale
    prime = (1 << 61) - 1
    shifted = [k << 40 for k in range(1, n)]
    # they differ only in bits that the search for room looks at last
    late = [(k << 55) | 5 for k in range(1, n)]

    def keyed(keys: Any) -> Trick:
        return _file(b"}(", *(opcodes(key) + b"N" for key in keys), b"u"), BUDGET

    dense = b"".join(b"M" + struct.pack("<H", k) + b"N" for k in range(n % 60_000))
    small = b"".join(opcodes(k << 20) + b"N" for k in range(300))
    return {
        "keys_of_one_hash": keyed(k * prime for k in range(8, n)),
        "keys_of_low_zeros": keyed(shifted),
        "keys_that_differ_late": keyed(late),
        "keys_that_are_negative": keyed(-k for k in shifted),
        "keys_that_are_floats": keyed(float(k) for k in shifted),
        "keys_that_are_fractions": keyed(k / (1 << 26) for k in range(1, n)),
        "keys_that_are_tuples": keyed((0, k * prime) for k in range(8, n)),
        "keys_that_are_wide_tuples": keyed((0,) * 60 + (k,) for k in range(n // 4)),
        "keys_by_pairs": (
            _file(
                opcodes(Name("collections", "OrderedDict")),
                b"](",
                *(opcodes((k, None)) for k in shifted),
                b"e\x85R",
            ),
            BUDGET,
        ),
        "keys_one_by_one": (
            _file(b"}", *(opcodes(key) + b"Ns" for key in shifted)),
            BUDGET,
        ),
        "keys_of_a_record": (
            _file(b"cx\ny\n)R(", *(opcodes(key) + b"N" for key in shifted), b"u"),
            BUDGET,
        ),
        "keys_that_are_dense": (_file(b"}(", dense, b"u"), "no state dict"),
        "keys_of_many_small_dicts": (
            _file(b"](", (b"}(" + small + b"u0") * (40 * scale), b"e"),
            READ,
        ),
    }


def _texts_and_numbers(scale: int) -> dict[str, Trick]:
    """Text that is larger than its bytes, and numbers that take long to print."""
    n = 400_000 * scale
    long_key = _memo(opcodes("k" * 200_000))
    wide = _memo(opcodes(("k" * 100_000,) * 2))
    emoji = "😀".encode()
    lines = b"V" + b"\\U0001F600" * 20_000 + b"\n0"
    return {
        "text_that_grows_fourfold": (
            _file(b"X" + struct.pack("<I", n + 4), b"a" * n + emoji),
            READ,
        ),
        "lines_that_are_escapes": (_file(lines * 10 * scale, b"N"), READ),
        "lines_without_an_end": (_file(b"V" + b"a" * n), "has no end"),
        "old_text_that_is_no_utf8": (
            _file(b"T" + struct.pack("<I", n) + b"\xff" * n),
            READ,
        ),
        "one_long_key_in_many_dicts": (
            _file(long_key, b"](", b"}h\x00Ns" * 2_000 * scale, b"e"),
            BUDGET,
        ),
        "one_wide_key_in_many_dicts": (
            _file(wide, b"](", b"}h\x00Ns" * 2_000 * scale, b"e"),
            BUDGET,
        ),
        "number_of_thousands_of_digits": (
            _file(b"I" + b"9" * 5_000 + b"\n"),
            "damaged",
        ),
        "long_of_thousands_of_digits": (_file(b"L" + b"9" * 5_000 + b"L\n"), "damaged"),
        "long_of_thousands_of_bytes": (
            _file(b"\x8b" + struct.pack("<I", 5_000) + b"\x7f" * 5_000),
            "integer of 5000 bytes",
        ),
        "long_of_negative_size": (_file(b"\x8b\xff\xff\xff\xff"), "claims"),
        "float_of_thousands_of_digits": (_file(b"F" + b"9" * 5_000 + b"\n"), "damaged"),
        "floats_that_are_infinite": (
            zipped(
                pickled({"m": {"w": tensor()}, "a": float("inf"), "b": float("nan")})
            ),
            READ,
        ),
        "numbers_that_are_large": (
            _file(b"](", (b"\x8a\xff" + b"\x7f" * 255) * 2_000 * scale, b"e"),
            READ,
        ),
        "many_small_texts": (_file(b"](", b"\x8c\x02ab" * n * 3, b"e"), BUDGET),
        "many_small_numbers": (_file(b"](", b"M\x00\x10" * n * 4, b"e"), BUDGET),
        "many_nones": (_file(b"](", b"N" * n, b"e"), READ),
        "text_with_half_characters": (
            zipped(
                pickled(
                    {"m": {"w": tensor()}, "n": Raw(b"X\x03\x00\x00\x00\xed\xa0\x80")}
                )
            ),
            READ,
        ),
    }


def _containers(scale: int) -> dict[str, Trick]:
    """Very many containers, and very many of one."""
    n = 200_000 * scale
    return {
        "many_lists": (_file(b"](", b"]" * n, b"e"), READ),
        "many_lists_of_one": (_file(b"](", b"]Na" * n, b"e"), BUDGET),
        "many_dicts": (_file(b"](", b"}" * n * 3, b"e"), BUDGET),
        "many_tuples_of_one": (_file(b"](", b"N\x85" * n, b"e"), BUDGET),
        "many_empty_tuples": (_file(b"](", b")" * n, b"e"), READ),
        "many_records": (_file(b"](", b"cx\ny\n)R" * n, b"e"), BUDGET),
        "many_marks": (_file(b"(" * 4 * n), BUDGET),
        "many_memorized": (_file(b"N", b"\x94" * 3 * n), BUDGET),
        "many_memorized_afar": (
            _file(b"N", *(b"r" + struct.pack("<I", k * 99) for k in range(n * 3))),
            BUDGET,
        ),
        "many_of_one_dict": (
            _file(_memo(opcodes({"a": 1})), b"](", b"h\x00" * n * 4, b"e"),
            READ,
        ),
        "many_of_one_record": (
            _file(_memo(b"cx\ny\n)R"), b"](", b"h\x00" * n * 4, b"e"),
            READ,
        ),
        "many_globals": (
            _file(*(b"cm%d\nn\n0" % k for k in range(30_000)), b"N"),
            "different globals",
        ),
        "many_mentions": (_file(b"cx\ny\n0" * n, b"N"), READ),
        "sets_of_sets": (_file(b"\x8f" * 150, b"(" * 0, b"N"), READ),
        "wide_below_wide": (
            _file(
                _memo(b"](" + b"N" * 20_000 + b"e"),
                _memo(b"](" + b"h\x00" * 5_000 + b"e"),
                b"h\x01",
            ),
            "unfolds",
        ),
        "modules_below_modules": (
            _file(_shared_modules(12)),
            BUDGET,
        ),
        "module_of_long_names": (
            zipped(pickled(_module({"p" * 300: tensor()}, {}, {}))),
            "no attribute can have",
        ),
    }


def _module(parameters: Any, buffers: Any, modules: Any) -> Call:
    state = {"_parameters": parameters, "_buffers": buffers, "_modules": modules}
    return Call("project.Net", state=state)


def _shared_modules(levels: int) -> bytes:
    """Modules that each hold the one below ten times."""
    out = _memo(opcodes(_module({"w": tensor()}, {}, {})))
    for level in range(levels):
        names = (opcodes(f"m{k}") + b"h" + bytes([level]) for k in range(10))
        modules = Raw(b"}(" + b"".join(names) + b"u")
        out += _memo(opcodes(_module({}, {}, modules)))
    return out + b"h" + bytes([levels])


def _recursion(scale: int) -> dict[str, Trick]:
    """What would have a reader call itself as deep as the file says."""
    tensor_type = Name("torch", "Tensor")

    def through(function: str, depth: int) -> Any:
        value: Any = (storage("0"), 0, (4,), (1,))
        inner: Any = Name("torch._utils", "_rebuild_tensor")
        for _ in range(depth):
            module, _, name = function.rpartition(".")
            value = (inner, tensor_type, value, {})
            inner = Name(module, name)
        return Call(function, *value)

    def alternating(depth: int) -> Any:
        value: Any = (Name("torch._utils", "_rebuild_tensor"), tensor_type, (), {})
        for _ in range(depth):
            rebuild = Name("torch._tensor", "_rebuild_from_type_v2")
            value = (
                Name("copyreg", "__newobj__"),
                tensor_type,
                (rebuild, *value),
                {},
            )
        return Call("torch._tensor._rebuild_from_type_v2", *value)

    nested: Any = []
    for _ in range(190):
        nested = [nested]
    config: Any = 1
    for _ in range(150):
        config = Call("project.Config", state={"inner": config})
    keys = Raw(opcodes(("a",)))
    return {
        "tensors_rebuilt_400_deep": (
            zipped(pickled({"m": {"w": tensor()}, "x": alternating(400)})),
            "levels deep",
        ),
        "types_rebuilt_400_deep": (
            zipped(
                pickled(
                    {
                        "m": {"w": tensor()},
                        "x": through("torch._tensor._rebuild_from_type_v2", 400),
                    }
                )
            ),
            "levels deep",
        ),
        "lists_190_deep": (zipped(pickled({"m": {"w": tensor()}, "x": nested})), READ),
        "lists_300_deep": (_file(b"]" * 300, b"a" * 299), "levels deep"),
        "configs_150_deep": (
            zipped(pickled({"m": {"w": tensor()}, "c": config})),
            READ,
        ),
        "lora_config_150_deep": (
            zipped(pickled({"m": {"w": tensor()}, "lora_config": config})),
            READ,
        ),
        "key_that_is_a_tuple": (
            zipped(
                pickled({"m": {"w": tensor()}, "d": Raw(b"}" + keys.opcodes + b"Ns")})
            ),
            READ,
        ),
    }


def _tensor(shape: Any, strides: Any, **more: Any) -> Call:
    """A tensor of one storage; `kind` and `size` of that, and `more` arguments."""
    return Call(
        "torch._utils._rebuild_tensor_v2",
        storage("0", more.get("kind", "FloatStorage"), more.get("size", 4)),
        0,
        shape,
        strides,
        False,
        Call("collections.OrderedDict"),
        *more.get("more", ()),
    )


def _weights(*tensors: Any) -> bytes:
    return zipped(pickled({f"w{k}": each for k, each in enumerate(tensors)}))


def _array(shape: Any, code: str, data: bytes) -> Call:
    return Call(
        "numpy.core.multiarray._reconstruct",
        Name("numpy", "ndarray"),
        (0,),
        b"b",
        state=(1, shape, Call("numpy.dtype", code, False, True), False, data),
    )


def _shapes(scale: int) -> dict[str, Trick]:
    """Shapes, strides and signs that no tensor has."""
    ones = (1,) * 64
    conj = ({"conj": True},)
    neg = ({"neg": True},)
    kind: dict[str, Any] = {"kind": "ComplexFloatStorage", "size": 2}
    integers = {"kind": "IntStorage"}
    big = 1 << 61
    many = _memo(opcodes(ones)) + _memo(opcodes(storage("0")))
    many += _memo(opcodes(Name("torch._utils", "_rebuild_tensor")))
    return {
        "shape_that_overflows": (
            _weights(_tensor((big, big, 0), (0, 0, 1))),
            "63 bits",
        ),
        "shape_that_overflows_late": (
            _weights(_tensor((0, big, big), (0, 0, 1))),
            "63 bits",
        ),
        "shape_of_a_hundred_bits": (_weights(_tensor((0, 1 << 100), (1, 1))), "shape"),
        "array_of_a_hundred_bits": (
            _weights(_array((0, 1 << 100), "f4", b"")),
            "no state dict",
        ),
        "array_that_overflows": (
            _weights(_array((big, big, 0), "f4", b"")),
            "no state dict",
        ),
        "array_of_negative_sizes": (
            _weights(_array((-2, -2), "f4", STORAGE)),
            "no state dict",
        ),
        "conj_of_floats": (_weights(_tensor((4,), (1,), more=conj)), "conjugate"),
        "conj_of_one_float": (_weights(_tensor((1,), (1,), more=conj)), "conjugate"),
        "neg_of_integers": (
            _weights(_tensor((4,), (1,), more=neg, **integers)),
            "negative",
        ),
        "neg_of_floats": (_weights(_tensor((4,), (1,), more=neg)), READ),
        "complex_of_64_dimensions": (_weights(_tensor(ones, ones, **kind)), READ),
        "complex_of_64_dimensions_conj": (
            _weights(_tensor(ones, ones, more=conj, **kind)),
            READ,
        ),
        "complex_of_64_dimensions_strided": (
            _weights(
                _tensor((*ones[:62], 2, 1), (*ones[:62], 1, 7), more=conj, **kind)
            ),
            READ,
        ),
        "tensor_of_65_dimensions": (
            _weights(_tensor((1,) * 65, (1,) * 65)),
            "65 sizes",
        ),
        "tensor_expanded_endlessly": (_weights(_tensor((1 << 40,), (0,))), "claim"),
        "tensor_expanded_twice": (
            _weights(_tensor((1 << 25,), (0,)), _tensor((1 << 26,), (0,))),
            "claim",
        ),
        "tensor_of_overlapping_rows": (
            _weights(_tensor((1 << 20, 1 << 20), (0, 0))),
            "claim",
        ),
        "tensor_with_a_huge_stride": (_weights(_tensor((2,), (1 << 61,))), "reaches"),
        "tensor_with_a_huge_empty_stride": (_weights(_tensor((0,), (1 << 61,))), READ),
        "tensor_with_a_negative_stride": (_weights(_tensor((2,), (-1,))), "strides"),
        "tensor_of_a_true_shape": (_weights(_tensor((True,), (1,))), "shape"),
        "many_views_of_64_dimensions": (
            _file(many, b"](", b"h\x02(h\x01K\x00h\x00h\x00tR" * 15_000 * scale, b"e"),
            BUDGET,
        ),
        "one_tensor_of_many_names": (
            _file(
                _memo(opcodes(_tensor((1 << 22,), (0,)))),
                b"}(",
                *(opcodes(f"w{k}") + b"h\x00" for k in range(1_000)),
                b"u",
            ),
            BUDGET,
        ),
    }


def _archives(scale: int) -> dict[str, Trick]:
    """Containers that claim, hide or damage something."""
    zeros = bytes(56 << 20)
    honest = pickled({"w": tensor()})
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr("a/data.pkl", pickled({}))
        for number in range(2_000 * scale):
            archive.writestr(f"a/data/{number}", b"")
    empty = {str(number): b"" for number in range(3_000 * scale)}
    empty_storages = [tensor(key, (0,), size=0) for key in empty]
    damaged = zipped(honest).replace(STORAGE, b"\1" + STORAGE[1:])
    part = zipped(pickled({"w": tensor(shape=(2,))})).replace(
        STORAGE, STORAGE[:-1] + b"\7"
    )
    stored_big = zipped(b"\x80\x04" + b"N0" * 500_000 * scale + b"N.")
    unused = zipped(honest, {"0": STORAGE, "1": b"unused-storage!!"})
    return {
        "pickle_that_inflates": (
            zipped(
                b"\x80\x04" + b"N0" * (26 << 20) + b"N.",
                {},
                method=zipfile.ZIP_DEFLATED,
            ),
            BUDGET,
        ),
        "storage_that_inflates": (
            zipped(
                pickled({"w": tensor(shape=(len(zeros) // 4,), size=len(zeros) // 4)}),
                {"0": zeros},
                method=zipfile.ZIP_DEFLATED,
            ),
            BUDGET,
        ),
        "many_entries": (many.getvalue(), READ),
        "many_storages_without_bytes": (
            zipped(pickled({"m": empty_storages}), empty),
            "no state dict",
        ),
        "storage_with_a_wrong_bit": (damaged, "is damaged"),
        "view_of_a_storage_with_a_wrong_bit": (part, "is damaged"),
        "storage_with_a_wrong_bit_that_nobody_reads": (
            unused.replace(b"unused-storage!!", b"Unused-storage!!"),
            READ,
        ),
        "deflated_storage_with_a_wrong_checksum": (_wrong_checksum(honest), "checksum"),
        "archive_without_checksums": (_without_checksums(zipped(honest)), READ),
        "opcodes_one_after_another": (stored_big, READ),
        "legacy_storages_without_end": (
            legacy({"w": tensor()}, keys=[str(k) for k in range(20_000)]),
            "none of its tensors names",
        ),
        "legacy_keys_that_are_one_list": (
            legacy({"w": tensor()}, keys=Raw(b"]\x94h\x00a")),
            "list",
        ),
        "legacy_version_of_many_digits": (legacy({}, {}, version=1 << 2000), "version"),
        "legacy_cut_in_a_storage": (legacy({"w": tensor()})[:-3], "cut short"),
        "tar_of_old": (b"x" * 257 + b"ustar" + b"\0" * 300, "tar archive"),
    }


def _without_checksums(archive: bytes) -> bytes:
    """The archive with zeros for all checksums, as torch writes it when asked to."""
    data = bytearray(archive)
    for magic, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        found = data.find(magic)
        while found >= 0:
            data[found + at : found + at + 4] = bytes(4)
            found = data.find(magic, found + 4)
    return bytes(data)


def _wrong_checksum(pickle_: bytes) -> bytes:
    """An archive of a compressed storage whose checksum is another one's."""
    archive = zipped(pickle_, method=zipfile.ZIP_DEFLATED)
    crc = struct.pack("<L", zlib.crc32(STORAGE))
    return archive.replace(crc, struct.pack("<L", 12345))


def _state_dicts(scale: int) -> dict[str, Trick]:
    """Nests in which weights are to be found."""

    def shared(levels: list[int]) -> bytes:
        """Dicts that each hold the one below so many times, tensors at the bottom."""
        weights = {f"w{k}": Raw(b"h\x00") for k in range(200)}
        out = _memo(opcodes(tensor())) + _memo(opcodes(weights))
        for number, width in enumerate(levels, 1):
            names = (opcodes(f"k{k}") + b"h" + bytes([number]) for k in range(width))
            out += _memo(b"}(" + b"".join(names) + b"u")
        return _file(out, b"h" + bytes([len(levels) + 1]))

    same = _memo(opcodes({"w": tensor()}))
    names = [f"m{k}" for k in range(900)]
    return {
        "state_dicts_shared_200_by_200": (shared([200, 200]), "state dicts"),
        "state_dicts_shared_30_by_30_by_30": (shared([30, 30, 30]), "state dicts"),
        "state_dicts_below_what_is_searched": (shared([9, 9, 9, 9]), "no state dict"),
        "hundreds_of_state_dicts": (
            _file(same, b"}(", *(opcodes(name) + b"h\x00" for name in names), b"u"),
            "900 state dicts",
        ),
        "facts_shared_everywhere": (
            _file(
                _memo(opcodes({f"a{k}": k for k in range(500)})),
                _memo(
                    b"}("
                    + b"".join(opcodes(f"b{k}") + b"h\x00" for k in range(500))
                    + b"u"
                ),
                b"}(",
                *(opcodes(f"c{k}") + b"h\x01" for k in range(20)),
                b"u",
            ),
            "no state dict",
        ),
        "keys_with_dots_that_meet": (
            zipped(pickled({"a.b": {"w": tensor()}, "a": {"b": {"w": tensor()}}})),
            "two state dicts",
        ),
        "names_that_steer_the_terminal": (
            zipped(pickled({"a\x1b[2J\nok": {"w": tensor()}, "b": {"w": tensor()}})),
            r"a\x1b[2J\nok",
        ),
    }


def _adapters(scale: int) -> dict[str, Trick]:
    """LoRA factors that don't fit, take long, or have impossible numbers."""
    huge = 1 << 2000

    def adapted(rank: int, **config: Any) -> bytes:
        size = 1 << 11
        factor = _tensor((rank, size), (0, 0))
        other = _tensor((size, rank), (0, 0))
        weights = {
            "l.weight": _tensor((size, size), (0, 0)),
            "l.lora_A.weight": factor,
            "l.lora_B.weight": other,
        }
        return zipped(pickled({"model": weights, "lora_config": config}))

    def named(*names: str, **config: Any) -> bytes:
        weights = {name: tensor(shape=(2, 2), strides=(2, 1)) for name in names}
        return zipped(pickled({"model": weights, "lora_config": config}))

    pair = ("l.weight", "l.lora_A.weight", "l.lora_B.weight")
    return {
        "rank_that_takes_hours": (adapted(1 << 11, alpha=8), BUDGET),
        "alpha_of_2000_bits": (named(*pair, alpha=huge), "2001 bits"),
        "rank_of_2000_bits": (named(*pair, alpha=8, rank=huge), "2001 bits"),
        "rank_of_zero": (named(*pair, alpha=8, rank=0), "rank 0"),
        "alpha_that_is_a_text": (named(*pair, alpha="8"), "alpha"),
        "alpha_that_is_nan": (named(*pair, alpha=float("nan")), "alpha"),
        "adapter_that_fits": (named(*pair, alpha=8, rank=2), READ),
        "base_layer_beside_the_layer": (
            named("l.weight", "l.base_layer.weight"),
            "two of the checkpoint's tensors",
        ),
        "factor_under_two_names": (
            named(*pair, "l.lora_A.default.weight", alpha=8),
            "two tensors are the factor",
        ),
        "factor_without_the_other": (named(*pair[:2], alpha=8), "the other factor"),
    }


def _facts(scale: int) -> dict[str, Trick]:
    """What becomes JSON."""
    huge = 1 << 2000
    wide = _memo(opcodes({f"k{k}": k for k in range(60)}))
    for level in range(3):
        inner = (opcodes(f"k{k}") + b"h" + bytes([level]) for k in range(60))
        wide += _memo(b"}(" + b"".join(inner) + b"u")
    text = _memo(opcodes("t" * 1_900))

    def fact(value: Any) -> bytes:
        return zipped(pickled({"model": {"w": tensor()}, "fact": value}))

    with_weights = opcodes("model") + opcodes({"w": tensor()}) + opcodes("fact")
    return {
        "facts_that_unfold": (_file(wide, b"}(", with_weights, b"h\x02u"), READ),
        "facts_that_unfold_further": (
            _file(wide, b"}(", with_weights, b"h\x03u"),
            "unfolds",
        ),
        "facts_that_repeat_a_text": (
            _file(
                text,
                _memo(b"](" + b"h\x00" * 60 + b"e"),
                _memo(b"](" + b"h\x01" * 60 + b"e"),
                b"}(",
                with_weights,
                b"](" + b"h\x02" * 60 + b"eu",
            ),
            READ,
        ),
        "duration_of_2000_bits": (fact(Call("datetime.timedelta", 0, 0, huge)), READ),
        "duration_of_days_of_2000_bits": (
            fact(Call("datetime.timedelta", huge, 0, 0)),
            READ,
        ),
        "uuid_of_2000_bits": (fact(Call("uuid.UUID", state={"int": huge})), READ),
        "complex_of_2000_bits": (fact(Call("builtins.complex", huge, 0)), "damaged"),
        "number_of_2000_bits": (fact(huge), READ),
        "date_of_nonsense": (fact(Call("datetime.datetime", b"\xff" * 10)), READ),
        "zone_of_2000_bits": (
            fact(
                Call(
                    "datetime.datetime",
                    b"\x07\xe8\x01\x01\x00\x00\x00\x00\x00\x00",
                    Call(
                        "datetime.timezone",
                        Call("datetime.timedelta", huge, 0, 0),
                    ),
                )
            ),
            READ,
        ),
        "keys_that_meet_as_text": (
            fact({1: "a", "1": "b", "'1'": "c"}),
            READ,
        ),
        "scalar_of_a_long_text": (
            fact(
                Call(
                    "numpy.core.multiarray.scalar",
                    Call("numpy.dtype", "U999999", False, True, state=(3, "<")),
                    b"\0" * 70_000,
                )
            ),
            READ,
        ),
        "lone_complex_of_64_dimensions": (
            fact(
                _tensor(
                    (1,) * 64,
                    (1,) * 64,
                    kind="ComplexFloatStorage",
                    size=2,
                    more=({"conj": True},),
                )
            ),
            READ,
        ),
    }


def _silent_losses(scale: int) -> dict[str, Trick]:
    """Files of which a part would be lost without a word."""
    inner = _module({"b": tensor()}, {}, {})
    return {
        "parameter_with_a_dot": (
            zipped(pickled(_module({"a.b": tensor()}, {}, {"a": inner}))),
            "two tensors named a.b",
        ),
        "parameter_that_is_a_buffer_too": (
            zipped(pickled(_module({"a": tensor()}, {"a": tensor()}, {}))),
            "two tensors named a",
        ),
        "module_that_is_honest": (
            zipped(pickled(_module({"a": tensor()}, {"c": tensor()}, {"a": inner}))),
            READ,
        ),
        "python_pickle_of_protocol_0": (
            zipped(pickle.dumps({"a": [1, 2.5, "x"]}, 0)),
            "no state dict",
        ),
    }


def _safetensors(scale: int) -> dict[str, Trick]:
    """Headers of safetensors files."""

    def written(header: bytes, data: bytes = b"") -> bytes:
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + data

    def one(shape: Any, offsets: Any = (0, 0), dtype: Any = "F32") -> bytes:
        entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        return written(json.dumps({"w": entry}).encode())

    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    many = b",".join(entry % number for number in range(80_000 * scale))
    return {
        "header_of_many_tensors": (written(b"{" + many + b"}"), BUDGET),
        "header_of_many_lists": (
            written(b'{"__metadata__":[' + b"[]," * 400_000 * scale + b"0]}"),
            BUDGET,
        ),
        "header_that_is_deep": (written(b'{"a":' + b"[" * 100_000 + b"}"), "whole"),
        "header_of_a_long_number": (
            written(b'{"a":' + b"9" * 5_000 + b"}"),
            "not a whole safetensors file",
        ),
        "header_of_many_dimensions": (one([1 << 60] * 30_000), "dimensions"),
        "header_of_a_huge_size": (one([0, 1 << 100]), "no tensor can have"),
        "header_that_overflows": (one([1 << 61, 1 << 61, 0]), "63 bits"),
        "header_with_a_long_dtype": (one([0], dtype="x" * 100_000), "unknown dtype"),
        "header_that_steers_the_terminal": (
            one([0], dtype="\x1b[2J\n"),
            r"\x1b[2J\n",
        ),
        "header_of_true_numbers": (one([True]), "no tensor can have"),
        "header_that_is_honest": (
            written(
                b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4
            ),
            READ,
        ),
    }
