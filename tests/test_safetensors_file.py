from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.networks.safetensors_file import read_safetensors
from tiny import damaged
from torch_tensors import safetensors_bytes

TENSORS = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "features.0.bias": np.array([0.5, -2.0], np.float16),
    "counted": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.float32),
    "features.1.weight": np.linspace(-1, 1, 6).reshape(3, 2),
}
FEW = {"a": np.arange(4, dtype=np.float32), "b": np.arange(4, dtype=np.float32)}


def read_bytes(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    return read_safetensors(path)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert np.array_equal(found[name], values), name


def refusal(tmp_path, data):
    with pytest.raises(WeightsError) as error:
        read_bytes(tmp_path, data)
    return str(error.value).removeprefix(str(tmp_path / "w.safetensors"))


def header(table):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return safetensors_bytes({}, header=text)


def entry(dtype="F32", shape=(4,), data_offsets=(0, 16), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(data_offsets), **more}


# --- what is read -----------------------------------------------------------------------------------------------------


def test_reads_every_tensor_and_leaves_the_remarks(tmp_path):
    assert_same(read_bytes(tmp_path, safetensors_bytes(TENSORS)), TENSORS)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_reads_every_kind_of_number(tmp_path, dtype):
    tensors = {"numbers": np.array([[0, 1, 3], [100, 0, 5]]).astype(dtype)}
    assert_same(read_bytes(tmp_path, safetensors_bytes(tensors)), tensors)


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([0.0, 1.0, -2.5, 3.140625, np.inf], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    data = safetensors_bytes({"w": upper, "v": FEW["a"]}, kinds={"w": "BF16"})
    assert_same(read_bytes(tmp_path, data), {"w": values, "v": FEW["a"]})


def test_drops_what_wrappers_put_before_a_name(tmp_path):
    data = safetensors_bytes({f"module._orig_mod.{name}": values for name, values in FEW.items()})
    assert_same(read_bytes(tmp_path, data), FEW)
    assert refusal(tmp_path, safetensors_bytes({"a": FEW["a"], "module.a": FEW["b"]})) == (
        " was not read: it has the tensor 'a' twice."
    )


def test_a_large_file_takes_no_memory_until_it_is_used(tmp_path):
    data = safetensors_bytes({"w": np.zeros(10_000_000, np.float32)})
    (tmp_path / "w.safetensors").write_bytes(data)
    tracemalloc.start()
    try:
        assert read_safetensors(tmp_path / "w.safetensors")["w"].size == 10_000_000
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.torch
def test_reads_what_the_format_own_library_writes(tmp_path):
    """Where that library is; it is no part of headstart's environments."""
    library = pytest.importorskip("safetensors.torch")
    import torch

    state = {name: torch.from_numpy(values) for name, values in TENSORS.items()} | {"half": torch.ones(3).bfloat16()}
    library.save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "w.safetensors")
    expected = TENSORS | {"half": np.ones(3, np.float32)}
    assert_same({name: found[name] for name in expected}, expected)
    (tmp_path / "ours.safetensors").write_bytes(safetensors_bytes(TENSORS))
    again = library.load_file(tmp_path / "ours.safetensors")
    assert_same({name: again[name].numpy() for name in TENSORS}, TENSORS)


# --- what is refused --------------------------------------------------------------------------------------------------

LIES = {
    "a place beyond the file": ({"a": {"data_offsets": [16, 48]}}, "tensor 'a' has more or fewer bytes than its shape"),
    "too large a shape": ({"a": {"shape": [5]}}, "tensor 'a' has more or fewer bytes than its shape needs."),
    "a huge shape": ({"a": {"shape": [2**62, 2**62]}}, "tensor 'a' has more or fewer bytes than its shape needs."),
    "a shape too large for anything": ({"a": {"shape": [2**64]}}, "the shape or place of tensor 'a' makes no sense."),
    "a negative shape": ({"a": {"shape": [-2, -2]}}, "the shape or place of tensor 'a' makes no sense."),
    "a shape of fractions": ({"a": {"shape": [4.0]}}, "the shape or place of tensor 'a' makes no sense."),
    "a shape of flags": ({"a": {"shape": [True, 4]}}, "the shape or place of tensor 'a' makes no sense."),
    "a shape of text": ({"a": {"shape": "4"}}, "the shape or place of tensor 'a' makes no sense."),
    "many sides": ({"a": {"shape": [1] * 100_000}}, "the shape or place of tensor 'a' makes no sense."),
    "one offset": ({"a": {"data_offsets": [0]}}, "the shape or place of tensor 'a' makes no sense."),
    "three offsets": ({"a": {"data_offsets": [0, 16, 16]}}, "the shape or place of tensor 'a' makes no sense."),
    "offsets that run back": ({"a": {"data_offsets": [16, 0]}}, "tensor 'a' has more or fewer bytes than its shape"),
    "tensors that overlap": ({"b": {"data_offsets": [8, 24]}}, "its tensors overlap, or leave a gap."),
    "tensors in one place": ({"b": {"data_offsets": [0, 16]}}, "its tensors overlap, or leave a gap."),
    "a gap": ({"b": {"data_offsets": [20, 36]}}, "its tensors overlap, or leave a gap."),
    "an unknown kind": ({"a": {"dtype": "F8_E4M3"}}, "tensor 'a' holds numbers of the kind 'F8_E4M3'; these are read: F64,"),
    "a kind of no text": ({"a": {"dtype": ["F32"]}}, "tensor 'a' holds numbers of the kind"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_tensors_that_cannot_be_are_refused(tmp_path, lie):
    changes, problem = LIES[lie]
    tracemalloc.start()
    try:
        assert refusal(tmp_path, safetensors_bytes(FEW, changes=changes)).startswith(f" was not read: {problem}")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("table", "problem"), [
    ([], "its header is no table of tensors."), ({}, "it holds no tensor."), ({"__metadata__": {}}, "it holds no tensor."),
    ({"a": []}, "its header says too little about tensor 'a'."),
    ({"a": {"dtype": "F32", "shape": [4]}}, "its header says too little about tensor 'a'."),
    (b'{"a": {}, "a": {}}', "its header has a name twice."),
    (b'{"a": {"dtype": "F32", "dtype": "F64"}}', "its header has a name twice."),
])  # fmt: skip
def test_headers_that_cannot_be_are_refused(tmp_path, table, problem):
    assert refusal(tmp_path, header(table)) == f" was not read: {problem}"


NO_JSON = {
    "text": b"not JSON", "no UTF-8": b"\xff\xfe{}", "deep lists": b"[" * 200_000, "deep tables": b'{"a": ' * 50_000,
    "a long number": b"9" * 5000, "cut off": b'{"a',
}  # fmt: skip


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_headers_that_are_no_json_are_refused(tmp_path, text):
    assert " is not a .safetensors file, or is damaged: its header is not JSON (" in refusal(tmp_path, header(text))


def test_other_files_are_refused(tmp_path):
    for data in (b"", b"abc", b"\0" * 100, b"PK\x03\x04" + b"\0" * 50, b"\xff" * 100, (2**63).to_bytes(8, "little")):
        assert " was not read: it does not begin as a .safetensors file does (a header of " in refusal(tmp_path, data)
    with pytest.raises(WeightsError, match=r"missing\.safetensors cannot be read: No such file or directory\."):
        read_safetensors(tmp_path / "missing.safetensors")


def test_a_header_as_large_as_no_network_has_is_not_read(tmp_path):
    data = header(b" " * 20_000_000 + b"{}")
    tracemalloc.start()
    try:
        assert "does not begin as a .safetensors file does" in refusal(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_cut_and_lengthened_files_are_refused(tmp_path):
    data = safetensors_bytes(TENSORS)
    for length in range(len(data)):
        refusal(tmp_path, data[:length])
    assert refusal(tmp_path, data + b"\0").endswith(" bytes; it has 157: it was cut off, or is damaged.")


def test_flipped_bytes_raise_nothing_else(tmp_path):
    data = safetensors_bytes(TENSORS)
    refused = 0
    for broken in damaged(data, 500):
        try:
            read_bytes(tmp_path, broken)
        except WeightsError:
            refused += 1
    assert refused > 100
