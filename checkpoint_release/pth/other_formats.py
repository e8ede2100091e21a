"""Files that are no checkpoints of PyTorch, known by how they begin.

What people have by mistake: pointers and archives in place of the file, answers of
servers, and the files of other frameworks. Each gets a description and a remedy.
"""

from __future__ import annotations

from checkpoint_release.pth.kinds import FileKind, unsupported

CHECK_PATH = "check that the path is that of a checkpoint"
SAVE_STATE_DICT = (
    "load it in the code that wrote it, and save model.state_dict() with torch.save"
)
_PYTORCH = "give a PyTorch checkpoint, such as the one that it was made from"
_SHOWN = 16  # bytes of a beginning in a message

# How each begins is its format's own magic number.
_MAGIC_NUMBERS = {
    b"version https://git-lfs": unsupported(
        "a Git LFS pointer: the file itself was not downloaded",
        "run git lfs pull, or download the file from its page",
    ),
    b"/annex/objects/": unsupported(
        "a git-annex pointer: the file itself was not downloaded",
        "run git annex get on it",
    ),
    b"\x1f\x8b": unsupported(
        "a gzip file", "unpack it with gunzip, or tar -xzf, first"
    ),
    b"BZh": unsupported("a bzip2 file", "unpack it with bunzip2 first"),
    b"\xfd7zXZ": unsupported("an xz file", "unpack it with unxz first"),
    b"\x28\xb5\x2f\xfd": unsupported("a zstandard file", "unpack it with unzstd first"),
    b"Rar!": unsupported("a RAR archive", "unpack it first"),
    b"7z\xbc\xaf": unsupported("a 7-Zip archive", "unpack it first"),
    b"\x89HDF": unsupported("an HDF5 file, as Keras writes it", _PYTORCH),
    b"GGUF": unsupported(
        "a GGUF file, as llama.cpp reads it",
        "take the PyTorch checkpoint that it was made from",
    ),
    b"lmgg": unsupported("a GGML file, as whisper.cpp reads it", _PYTORCH),
    b"\x93NUMPY": unsupported(
        "a numpy array", "save a state dict of tensors with torch.save"
    ),
    b"PAR1": unsupported("a Parquet file: a table of data", CHECK_PATH),
    b"ftrt": unsupported("an engine of TensorRT", _PYTORCH),
    b"PK\x05\x06": unsupported("an empty zip archive", "save the checkpoint again"),
    b"\x7fELF": unsupported("a program", CHECK_PATH),
    b"%PDF": unsupported("a PDF", CHECK_PATH),
}
_TFLITE = unsupported("a TensorFlow Lite model", _PYTORCH)
_FLAX = unsupported("a MessagePack file, as Flax writes it", _PYTORCH)
_COREML = unsupported("a Core ML model", _PYTORCH)
_OPENVINO = unsupported("the graph of an OpenVINO model (.xml)", _PYTORCH)
_KERAS = unsupported("a Keras model (.keras)", _PYTORCH)
_NUMPY_ARRAYS = unsupported("numpy arrays (.npz)", SAVE_STATE_DICT)

_TORCH_TAR = unsupported(
    "of torch before 0.1.10, which wrote tar archives",
    "convert it where nothing can be lost, as loading it runs what it names: by"
    " torch.save(torch.load(path, weights_only=False), new_path)",
)
_TAR = unsupported("a tar archive", "unpack it, and give the checkpoint in it")
_MEMBERS_OF_TORCH = (b"sys_info", b"pickle", b"tensors", b"storages")
_DVC_FILE = unsupported(
    "a .dvc file: what DVC keeps in the place of the data",
    "give the path without .dvc, where the data lies; if it isn't there, run dvc pull"
    " on the .dvc file",
)
_WEB_PAGE = unsupported(
    "a web page: the download was answered with a login, a warning or an error",
    "open it in a browser to see what it says, and download the file again",
)
_XML = unsupported(
    "XML, maybe a storage server's error message", "open it in a text editor"
)
_JSON = unsupported("JSON, maybe a server's error message", "open it in a text editor")
_REPACKED = unsupported(
    "a checkpoint packed again from another folder: data.pkl is not one folder deep",
    "pack it so that every name begins with the same single folder, as in"
    " archive/data.pkl",
)


def known_beginning(head: bytes) -> FileKind | None:
    """What a file is that begins as others of its format do.

    Args:
        head: its first bytes, up to 4096.

    Returns:
        None where it begins as no known format does.
    """
    for magic, kind in _MAGIC_NUMBERS.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":  # behind the first file's name and sizes
        first_name = head[:100].rstrip(b"\0")
        return _TORCH_TAR if first_name in _MEMBERS_OF_TORCH else _TAR
    if head[4:8] == b"TFL3":  # behind the place of a FlatBuffer's first table
        return _TFLITE
    if _begins_as_flax(head):
        return _FLAX
    return _COREML if _begins_as_coreml(head) else _known_text(head)


def other_archive(names: list[str]) -> FileKind:
    """What a zip archive is that torch didn't write as it is.

    Args:
        names: of the entries, sorted; a file's own text, so a message shows only some.
    """
    if "model.weights.h5" in names:
        return _KERAS
    for name in names:
        if name.endswith(".npy"):
            return _NUMPY_ARRAYS
    for name in names:
        if name.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors")):
            return unsupported(
                f"a zip archive with {name!r} in it", "unpack it and give that file"
            )
    for name in names:
        if name.rpartition("/")[2] == "data.pkl":
            return _REPACKED
    shown = ", ".join(names[:3])
    return unsupported(
        f"a zip archive of {len(names)} files ({shown[:200]}) with no data.pkl",
        CHECK_PATH,
    )


def unknown(head: bytes) -> FileKind:
    """What is reported of a file that nothing is known of."""
    return unsupported(
        f"of no format that is known here: it begins with {head[:_SHOWN]!r}", CHECK_PATH
    )


def _known_text(head: bytes) -> FileKind | None:
    """What a text is. Text has no magic number: a byte order mark and white space may
    come before what shows its format.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head")):
        return _WEB_PAGE
    if text.startswith(b"<?xml"):
        if b"<html" in text:
            return _WEB_PAGE
        return _OPENVINO if b"<net " in text else _XML
    if text.startswith((b"{", b"[")):
        return _JSON
    lines = text.splitlines()
    has_outs = b"outs:" in lines
    has_path = any(line.lstrip(b"- ").startswith(b"path:") for line in lines)
    return _DVC_FILE if has_outs and has_path else None


def _begins_as_flax(head: bytes) -> bool:
    """A MessagePack map of a few keys, the first a short text in ASCII."""
    if len(head) < 3 or not 0x81 <= head[0] <= 0x8F:  # a map of 1 to 15 keys
        return False
    length = head[1] - 0xA0  # of a text of up to 31 bytes
    key = head[2 : 2 + max(0, length)]
    return 1 <= length <= 31 and len(key) == length and key.isascii()


def _begins_as_coreml(head: bytes) -> bool:
    """The version of a specification, and a description whose first field is an input.

    Core ML's Model has the version in field 1 and the description in field 2, and
    ModelDescription the inputs in field 1 (Model.proto of coremltools). ONNX has a text
    in field 2, which never begins with a line feed.
    """
    if len(head) < 5 or head[0] != 0x08 or head[1] >= 0x80 or head[2] != 0x12:
        return False
    at = 3
    while at < len(head) - 1 and head[at] >= 0x80:  # the description's length
        at += 1
    return head[at + 1 : at + 2] == b"\x0a"
