"""Files of every form, whole, damaged and hostile."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskx_tf.checkpoints import npz
from maskx_tf.errors import BadInput
from maskx_tf.importers.readers import read, tensors_of
from tests.importers.files import Tensors, python2_pickle, write_safetensors, write_torch


@pytest.fixture
def tensors() -> Tensors:
    generator = np.random.default_rng(0)
    shapes = {"a.weight": (3, 2, 5, 5), "a.bias": (3,), "number": (), "empty": (0, 4)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_same(found: Any, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


def attempt(path: Path) -> tuple[Any, str]:
    """What a file holds, or why it cannot be read."""
    try:
        return read(path), ""
    except BadInput as error:
        return {}, str(error)


def test_npz(tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "a"
    npz.write(path, tensors.items())
    assert_same(read(path), tensors)
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **tensors)
    assert_same(read(path), tensors)
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **tensors)
    assert_same(read(path), tensors)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors, "optimizer": {"state": {}}, "epoch": 3},
        lambda tensors: {"model_state_dict": tensors, "loss": 0.5},
        lambda tensors: {"state_dict": {f"model.{name}": array for name, array in tensors.items()}},
        lambda tensors: {f"module.{name}": array for name, array in tensors.items()},
        lambda tensors: {"model": {"state_dict": {f"module._orig_mod.{name}": one for name, one in tensors.items()}}},
    ],
)
def test_wrappers_and_prefixes_of_checkpoints(wrap: Any, tensors: Tensors) -> None:
    assert_same(tensors_of(Path("a"), wrap(tensors)), tensors)


def test_a_prefix_of_some_names_is_kept(tensors: Tensors) -> None:
    some = {**tensors, "module.a": tensors["a.bias"]}
    assert_same(tensors_of(Path("a"), some), some)


def test_npz_is_the_same_bytes_every_time(tmp_path: Path, tensors: Tensors) -> None:
    for name in "ab":
        npz.write(tmp_path / name, tensors.items())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_safetensors(tmp_path: Path, tensors: Tensors) -> None:
    assert_same(read(write_safetensors(tmp_path / "a", tensors)), tensors)


def test_safetensors_in_half_precision(tmp_path: Path) -> None:
    exact = {"a": np.array([[1.0, -2.5, 0.15625, 2.0**100]], np.float32)}  # all of them bfloat16
    assert_same(read(write_safetensors(tmp_path / "a", exact, "BF16")), exact)
    halves = {"a": np.array([1.5, -65504.0], np.float16)}
    found = read(write_safetensors(tmp_path / "b", halves, "F16"))
    assert found["a"].dtype == np.float16
    assert_same(found, halves)


def test_torch(tmp_path: Path, tensors: Tensors) -> None:
    every = {**tensors, "half": np.float16([1.5, 2.5]), "steps": np.array(7), "turned": np.float32([[1, 2, 3]] * 2).T}
    assert_same(read(write_torch(tmp_path / "a", every)), every)
    assert_same(tensors_of(tmp_path, read(write_torch(tmp_path / "b", every, wrap="model"))), every)


def test_torch_in_bfloat16(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert_same(read(write_torch(tmp_path / "a", {"a": halves})), {"a": values})


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_python_3(tmp_path: Path, tensors: Tensors, protocol: int) -> None:
    every = {**tensors, "turned": np.float64([[1, 2, 3]] * 2).T, "large": np.array([1, 2], ">i4"), "one": np.float32(3)}
    path = tmp_path / "a.pkl"
    content = {"model": OrderedDict(every), "__author__": "made up", "set": {1, 2}, "none": None}
    path.write_bytes(pickle.dumps(content, protocol))
    found = read(path)
    assert (found["__author__"], found["set"], found["none"]) == ("made up", {1, 2}, None)
    assert found["model"].pop("one") == every.pop("one")
    assert_same(found["model"], every)


def test_pickles_of_python_2(tmp_path: Path, tensors: Tensors) -> None:
    every = {**tensors, "turned": np.float64([[1, 2, 3]] * 2).T}
    path = tmp_path / "a.pkl"
    path.write_bytes(python2_pickle({"blobs": every, "cfg": "A: 1\n"}))
    found = read(path)
    assert found["cfg"] == "A: 1\n"
    assert_same(found["blobs"], every)
    # What this test writes is what it says: the ordinary reader agrees.
    assert_same(pickle.loads(path.read_bytes(), encoding="latin1")["blobs"], every)


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def program(*lines: bytes) -> bytes:
    return b"\x80\x04" + b"".join(lines) + b"."


HOSTILE = {
    "os.system": pickle.dumps(Call(os.system, "touch ran")),
    "eval": pickle.dumps(Call(eval, "open('ran', 'w')")),
    "exec, protocol 0": pickle.dumps(Call(exec, "open('ran', 'w')"), 0),
    "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system")),
    "subprocess": pickle.dumps(Call(subprocess.Popen, ["touch", "ran"])),
    "numpy.load": pickle.dumps(Call(np.load, "secret.npy", None, True)),
    "numpy.fromfile": pickle.dumps(Call(np.fromfile, "secret.npy")),
    "numpy.memmap": b"cnumpy\nmemmap\n(Vsecret.npy\ntR.",
    "numpy's own exec": b"cnumpy.testing._private.utils\nrunstring\n(Vopen('ran', 'w')\n}tR.",
    "dotted name": program(b"\x8c\x05numpy", b"\x8c\x11ndarray.__reduce__", b"\x93"),
    "dotted name of a friend": program(b"\x8c\x0bcollections", b"\x8c\x13OrderedDict.__init__", b"\x93"),
    "old instance": b"(Vtouch ran\nios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "array of objects": pickle.dumps(np.array([{}, None], object)),
    "array of records": pickle.dumps(np.zeros(2, [("a", "f4")])),
    "codec": b"c_codecs\nencode\n(Va\nVrot13\ntR.",
    "state of a function": b"cnumpy.core.multiarray\n_reconstruct\n(N}V__defaults__\nI1\nstb.",
    "state of a class": b"ccollections\nOrderedDict\n(N}Vcopy\nI1\nstb.",
    "call of text": b"cnumpy\nndarray\n(tR.",
    "persistent": b"Pabc\n.",
    "array without its state": b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
    "array of a text": b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntVf4\nI00\nVabcd\ntb.",
    "itself": b"]\x94h\x00a.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "far memo": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_do_not_run(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("secret.npy", np.arange(3))
    Path("a.pkl").write_bytes(content)
    refused(Path("a.pkl"))
    with zipfile.ZipFile("a.pth", "w") as archive:  # the same inside a torch file
        archive.writestr("weights/data.pkl", content)
    refused(Path("a.pth"))
    assert sorted(os.listdir()) == ["a.pkl", "a.pth", "secret.npy"]


def test_the_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": {}, "args": Call(os.system, "true")}))
    assert refused(path).startswith(f": expected only arrays and containers, found {os.system.__module__}.system")


@pytest.mark.parametrize("size", [(4, 4), (2, -1), (10**6, 10**6)])
def test_tensors_stay_inside_their_storage(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_torch(tmp_path / "a", {"a": np.zeros((2, 3), np.float32)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    shape = members["weights/data.pkl"]
    assert shape.count(b"K\x02K\x03\x86") == 1
    large = b"".join(b"J" + struct.pack("<i", side) for side in size) + b"\x86"
    members["weights/data.pkl"] = shape.replace(b"K\x02K\x03\x86", large)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "a tensor of size" in refused(path)


WRITERS = {
    "npz": lambda path, tensors: npz.write(path, tensors.items()),
    "safetensors": write_safetensors,
    "torch": write_torch,
    "pickle": lambda path, tensors: path.write_bytes(pickle.dumps(tensors, 4)),
    "python 2": lambda path, tensors: path.write_bytes(python2_pickle(tensors)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_cut_short(kind: str, tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "a"
    WRITERS[kind](path, tensors)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_is_one_line_or_harmless(kind: str, tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "a"
    WRITERS[kind](path, tensors)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.choice(len(whole), min(len(whole), 400), replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        found, problem = attempt(path)
        assert problem.isprintable()
        if kind == "npz" and list(found) == list(tensors):  # every byte of an array is under a checksum
            assert_same(found, tensors)


def test_old_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    assert refused(path).startswith(": a torch file from before torch 1.6")
    path.write_bytes(b"storages" + bytes(249) + b"ustar\x0000" + bytes(1000))
    assert refused(path).startswith(": a torch file from before torch 1.6")


def test_torch_script(tmp_path: Path, tensors: Tensors) -> None:
    path = write_torch(tmp_path / "a", tensors, extra={"constants.pkl": b"", "code/model.py": b""})
    assert refused(path).startswith(": a TorchScript program")


def test_other_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").startswith(": cannot be read: No such file")
    assert refused(tmp_path).startswith(": cannot be read: Is a directory")
    for content, problem in (
        (b"\x89HDF\r\n\x1a\n" + bytes(100), ": a Keras file"),
        (b"", ": cut short, damaged or no pickle"),
        (b"GIF89a", ": cut short, damaged or no pickle"),
    ):
        (tmp_path / "a").write_bytes(content)
        assert refused(tmp_path / "a").startswith(problem)
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("photo.jpg", b"")
    assert refused(tmp_path / "a") == ": a zip of photo.jpg, expected a .npz or a torch file"


def test_content_without_tensors(tmp_path: Path) -> None:
    for content, problem in (([1], "a list"), ({}, "nothing"), ({"a": 1, "b": {}}, "a, b")):
        with pytest.raises(BadInput, match=f"holds {problem}, expected named tensors"):
            tensors_of(tmp_path, content)


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_only_regular_files_are_opened(tmp_path: Path, path: str) -> None:
    place = tmp_path / path
    if path == "pipe":
        os.mkfifo(place)
    assert refused(place) == ": cannot be read: not a regular file"
    with pytest.raises(BadInput, match="cannot be read: not a regular file"), npz.reading(place):
        pass


def _header(shape: str, kind: str = "<f4") -> bytes:
    """The header of an array in NumPy's format."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (_header("(1000000000000,)"), "float32 [1000000000000] needs 4000000000128 bytes, found 128"),
        (_header("(2,)") + bytes(12), "float32 [2] needs 136 bytes, found 140"),
        (_header("(-1,)"), "float32 [-1] needs 124 bytes, found 128"),
        (_header("(2,)", "|O") + bytes(16), "it holds Python objects"),
        (_header("9" * 5000 + ","), ""),
        (b"\x93NUMPY\x07\x00" + bytes(200), ""),
        (b"", ""),
    ],
)
def test_arrays_are_refused_by_their_headers(member: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member)
    said = refused(path)
    assert said.startswith(": a: damaged, or no array: ")
    assert problem in said


def test_a_zip_that_unpacks_to_far_more_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(_header("(75000000,)"))
        for _ in range(300):
            member.write(bytes(1_000_000))

    def read_all(*_: object) -> bytes:
        raise AssertionError("it is unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "read", read_all)
    size = path.stat().st_size
    assert refused(path) == f": expected weights, found a file of {size} bytes that unpacks to 300000128"


def test_safetensors_are_checked_before_numbers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(*_: object) -> None:
        raise AssertionError("numbers are read")

    monkeypatch.setattr("maskx_tf.importers.readers._safetensor", numbers)
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for change, problem in (
        ({"shape": [10**12]}, "a tensor F32 of shape [1000000000000] has 8 bytes"),
        ({"data_offsets": [0, 10**12]}, "a tensor lies at 0 to 1000000000000 of 8 bytes"),
        ({"data_offsets": [8, 0]}, "a tensor lies at 8 to 0 of 8 bytes"),
        ({"shape": [-2]}, "a tensor F32 of shape [-2] has 8 bytes"),
        ({"dtype": "F8_E4M3"}, "F8_E4M3"),
        ({"dtype": "BF16"}, "a tensor BF16 of shape [2] has 8 bytes"),
    ):
        header = json.dumps({"a": good, "b": {**good, **change}}).encode()
        (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        assert ": cut short, damaged or no safetensors: " in (said := refused(tmp_path / "a"))
        assert problem in said
