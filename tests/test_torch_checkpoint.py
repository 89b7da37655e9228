from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.networks.torch_checkpoint import read_torch_checkpoint
from tiny import Call, Global, Storage, contiguous, damaged, legacy_bytes, rebuild, tensors_to_state, zip_bytes

LAYOUTS = pytest.mark.parametrize("layout", [legacy_bytes, zip_bytes], ids=["legacy", "zip"])


class BFloat16(Storage):
    """Numbers whose bits are given, as NumPy has no bfloat16."""

    @property
    def type_name(self):
        return "BFloat16Storage"


TENSORS = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "features.0.bias": np.array([0.5, -2.0], np.float16),
    "counted": np.array(7, np.int64),
    "features.1.weight": np.linspace(-1, 1, 6).reshape(3, 2),
}


def read_bytes(tmp_path, data):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(data)
    return read_torch_checkpoint(path)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name


# --- what is read -----------------------------------------------------------------------------------------------------


@LAYOUTS
def test_reads_every_tensor(tmp_path, layout):
    assert_same(read_bytes(tmp_path, layout(tensors_to_state(TENSORS))), TENSORS)


@LAYOUTS
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?"])
def test_reads_every_kind_of_number(tmp_path, layout, dtype):
    tensors = {"numbers": np.array([[0, 1, 3], [100, 0, 5]]).astype(dtype)}
    assert_same(read_bytes(tmp_path, layout(tensors_to_state(tensors))), tensors)


@LAYOUTS
def test_bfloat16_becomes_float32(tmp_path, layout):
    values = np.array([0.0, 1.0, -2.5, 3.140625, -1e-30, np.inf], np.float32)
    upper = BFloat16("0", (values.view(np.uint32) >> 16).astype(np.uint16))
    values = (upper.values.astype(np.uint32) << 16).view(np.float32).reshape(2, 3)
    state = {"plain": rebuild(upper, (2, 3), (3, 1)), "turned": rebuild(upper, (3, 2), (1, 3))}
    assert_same(read_bytes(tmp_path, layout(state)), {"plain": values, "turned": values.T})
    state = {"w": rebuild(BFloat16("0", upper.values), (7,), (1,))}
    with pytest.raises(WeightsError, match="a tensor is larger than its storage"):
        read_bytes(tmp_path, layout(state))


@LAYOUTS
def test_follows_strides_and_offsets(tmp_path, layout):
    storage = Storage("0", np.arange(20, dtype=np.float32))
    state = {"turned": rebuild(storage, (3, 4), (1, 3), 2), "shared": rebuild(storage, (2, 2), (5, 0), 1)}
    found = read_bytes(tmp_path, layout(state))
    assert np.array_equal(found["turned"], np.arange(2, 14).reshape(4, 3).T)
    assert np.array_equal(found["shared"], [[1, 1], [6, 6]])


@LAYOUTS
@pytest.mark.parametrize("place", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_reads_a_nested_state_dict_and_drops_the_names_of_wrappers(tmp_path, layout, place, wrapper):
    nested = {"epoch": 3, place: {f"{wrapper}{name}": contiguous(name, v) for name, v in TENSORS.items()}}
    assert_same(read_bytes(tmp_path, layout(nested)), TENSORS)


@LAYOUTS
def test_two_tensors_that_become_one_are_refused(tmp_path, layout):
    state = {name: contiguous(name, np.ones(3, np.float32)) for name in ("w", "module.w")}
    with pytest.raises(WeightsError, match=r"was not read: it has the tensor 'w' twice\."):
        read_bytes(tmp_path, layout(state))


@LAYOUTS
def test_reads_parameters(tmp_path, layout):
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (contiguous("0", np.ones(3, "f4")), True, {}))
    assert_same(read_bytes(tmp_path, layout({"w": parameter})), {"w": np.ones(3, np.float32)})


@LAYOUTS
def test_reads_a_tensor_of_nothing(tmp_path, layout):
    assert_same(read_bytes(tmp_path, layout(tensors_to_state({"none": np.zeros((0, 4), "f4")}))),
                {"none": np.zeros((0, 4), np.float32)})  # fmt: skip


@LAYOUTS
def test_reads_the_weights_of_a_training_checkpoint_and_leaves_the_rest(tmp_path, layout):
    momentum = contiguous("momentum", np.zeros(5, np.float32))
    weights = {name: contiguous(name, values) for name, values in TENSORS.items()}
    found = read_bytes(tmp_path, layout({"optimizer": {"state": [momentum]}, "epoch": 3, "state_dict": weights}))
    assert_same(found, TENSORS)


# --- what is refused --------------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("posix", "system"), ("builtins", "eval"),
                                              ("builtins", "getattr"), ("torch._utils", "_rebuild_qtensor")])  # fmt: skip
def test_code_is_refused_by_name_and_never_run(tmp_path, layout, module, name):
    mark = tmp_path / "ran"
    with pytest.raises(WeightsError) as error:
        read_bytes(tmp_path, layout({"w": Call(Global(module, name), (f"touch {mark}",))}))
    assert str(error.value) == (
        f"{tmp_path / 'checkpoint.pt'} was not read: it asks for {module}.{name}; a checkpoint of weights holds "
        "tensors alone. Save it with torch.save(model.state_dict(), path)."
    )
    assert not mark.exists()


def test_a_bare_pickle_of_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with pytest.raises(WeightsError, match="it asks for"):
        read_bytes(tmp_path, pickle.dumps(Hostile(), protocol=2))
    assert not (tmp_path / "ran").exists()


def lies():
    """States whose tensors cannot be: name -> state."""
    ten = Storage("0", np.arange(10, dtype=np.float32))
    return {
        "a shape beyond the storage": rebuild(ten, (11,), (1,)),
        "an offset beyond the storage": rebuild(ten, (5,), (1,), 6),
        "strides beyond the storage": rebuild(ten, (2, 5), (6, 1)),
        "a repeated number": rebuild(ten, (10**6, 10**6), (0, 0)),
        "a huge shape": rebuild(ten, (2**62, 2**62), (1, 1)),
        "a shape that overflows": rebuild(ten, (2**63 + 1,), (1,)),
        "a negative shape": rebuild(ten, (-3,), (1,)),
        "two negative sides": rebuild(ten, (-3, -3), (1, 1)),
        "a negative stride": rebuild(ten, (3,), (-1,), 5),
        "a negative offset": rebuild(ten, (3,), (1,), -2),
        "fewer strides than sides": rebuild(ten, (3, 3), (1,)),
        "a shape of text": rebuild(ten, ("a",), (1,)),
        "no storage": rebuild("storage", (3,), (1,)),
        "a storage of another kind": rebuild(Storage("0", ten.values, kind="module"), (3,), (1,)),
        "an enormous empty tensor": rebuild(ten, (0, 2**70), (2**70, 2**70)),
        "many sides": rebuild(ten, (1,) * 100, (1,) * 100),
    }


@LAYOUTS
@pytest.mark.parametrize("lie", list(lies()))
def test_tensors_that_cannot_be_are_refused(tmp_path, layout, lie):
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=r"checkpoint\.pt"):
            read_bytes(tmp_path, layout({"w": lies()[lie]}))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [11, 10**15, -1, -(2**63), 2**63 - 1])
def test_a_legacy_storage_that_claims_more_than_there_is_is_refused(tmp_path, count):
    state = tensors_to_state({"w": np.arange(10, dtype=np.float32)})
    with pytest.raises(WeightsError, match="it ends before its tensors do"):
        read_bytes(tmp_path, legacy_bytes(state, counts={"0": count}))


@LAYOUTS
def test_tensors_that_share_a_storage_take_no_memory_of_their_own(tmp_path, layout):
    storage = Storage("0", np.zeros(250_000, np.float32))
    state = {str(number): rebuild(storage, (250_000,), (1,)) for number in range(1000)}
    data = layout(state)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path, data)) == 1000  # A gigabyte, were they copies.
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


BOMBS = {
    "a memo of 8 GB": b"\x80\x02Nr\x00\x00\x00\x20.",
    "a memo of 80 GB in text": b"\x80\x02Np10000000000\n.",
    "a key that overflows the stack when it is hashed": b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",
}


@pytest.mark.parametrize("bomb", list(BOMBS))
@pytest.mark.parametrize("as_zip", [False, True], ids=["legacy", "zip"])
def test_pickles_that_would_kill_the_unpickler_are_refused_unread(tmp_path, bomb, as_zip):
    data = BOMBS[bomb]
    if as_zip:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", data)
        data = file.getvalue()
    with pytest.raises(WeightsError, match="its index is larger than any network's"):
        read_bytes(tmp_path, data)


def test_compressed_tensors_are_refused(tmp_path):
    state = tensors_to_state({"w": np.zeros(10**6, np.float32)})
    with pytest.raises(WeightsError, match="its tensors are compressed"):
        read_bytes(tmp_path, zip_bytes(state, compression=zipfile.ZIP_DEFLATED))


@LAYOUTS
@pytest.mark.parametrize(("state", "reason"), [([1, 2], "it holds no state dict"), ({"a": 1}, "it holds no tensor"),
                                               ("text", "it holds no state dict")])  # fmt: skip
def test_what_holds_no_tensor_is_refused(tmp_path, layout, state, reason):
    with pytest.raises(WeightsError, match=reason):
        read_bytes(tmp_path, layout(state))


def test_other_files_are_refused(tmp_path):
    for data in (b"", b"\0" * 100, b"not a checkpoint", b"PK\x05\x06" + b"\0" * 18, b"\x89HDF\r\n\x1a\n" + b"\0" * 64):
        with pytest.raises(WeightsError, match=r"is not a PyTorch checkpoint, or is damaged \(\w+\)"):
            read_bytes(tmp_path, data)
    with pytest.raises(WeightsError, match="it does not begin as a PyTorch checkpoint does"):
        read_bytes(tmp_path, legacy_bytes(tensors_to_state(TENSORS), magic=42))
    with pytest.raises(WeightsError, match=r"missing\.pt cannot be read: No such file or directory\."):
        read_torch_checkpoint(tmp_path / "missing.pt")


@LAYOUTS
def test_truncated_files_raise_nothing_else(tmp_path, layout):
    data = layout(tensors_to_state(TENSORS))
    for length in np.linspace(0, len(data) - 1, 20).astype(int):
        with pytest.raises(WeightsError):
            read_bytes(tmp_path, data[:length])


@LAYOUTS
def test_flipped_bytes_raise_nothing_else(tmp_path, layout):
    data = layout(tensors_to_state(TENSORS))
    refused = 0
    for broken in damaged(data, 400):
        try:
            read_bytes(tmp_path, broken)
        except WeightsError:
            refused += 1
    assert refused > 100


@LAYOUTS
def test_pickles_cut_from_random_opcodes_raise_nothing_else(tmp_path, layout):
    random = np.random.default_rng(1)
    for _ in range(200):
        with pytest.raises(WeightsError):
            read_bytes(tmp_path, b"\x80\x02" + random.integers(0, 256, 60, np.uint8).tobytes() + b".")


def test_needs_no_pytorch(tmp_path):
    (tmp_path / "c.pt").write_bytes(zip_bytes(tensors_to_state(TENSORS)))
    code = (
        "import sys; from headstart.networks.torch_checkpoint import read_torch_checkpoint as read; "
        f"read({str(tmp_path / 'c.pt')!r}); sys.exit(any(m in sys.modules for m in ('torch', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what PyTorch itself writes ---------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("as_zip", [False, True])
def test_reads_what_pytorch_writes(tmp_path, as_zip):
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2).half())
    base = torch.arange(24.0)
    state = OrderedDict(network.state_dict(), parameter=torch.nn.Parameter(base[2:8]))
    state |= {"turned": base.reshape(4, 6).T, "sliced": base.reshape(4, 6)[1:3, ::2], "flags": base > 3}
    torch.save(state, tmp_path / "c.pt", _use_new_zipfile_serialization=as_zip)
    assert zipfile.is_zipfile(tmp_path / "c.pt") == as_zip
    assert_same(read_torch_checkpoint(tmp_path / "c.pt"), {name: v.detach().numpy() for name, v in state.items()})


@pytest.mark.torch
@pytest.mark.parametrize("as_zip", [False, True])
def test_refuses_a_whole_module_of_pytorch(tmp_path, as_zip):
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "c.pt", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(WeightsError, match=r"it asks for torch\.nn\.modules\.linear\.Linear"):
        read_torch_checkpoint(tmp_path / "c.pt")


@pytest.mark.torch
@pytest.mark.parametrize("as_zip", [False, True])
def test_reads_bfloat16_as_pytorch_writes_it(tmp_path, as_zip):
    import torch

    values = torch.linspace(-3, 3, 12).reshape(3, 4).bfloat16()
    torch.save({"w": values, "turned": values.T}, tmp_path / "c.pt", _use_new_zipfile_serialization=as_zip)
    expected = values.float().numpy()
    assert_same(read_torch_checkpoint(tmp_path / "c.pt"), {"w": expected, "turned": expected.T})


@pytest.mark.torch
def test_refuses_a_torchscript_program(tmp_path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That it is deprecated.
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "c.pt")
    with pytest.raises(WeightsError) as error:
        read_torch_checkpoint(tmp_path / "c.pt")
    assert str(error.value) == (
        f"{tmp_path / 'c.pt'} was not read: it is a TorchScript program, which is never run. Save its weights with "
        "torch.save(torch.jit.load(path).state_dict(), other_path)."
    )


@pytest.mark.torch
def test_pytorch_reads_what_the_tests_write(tmp_path):
    """So that the hand-written files above are what they claim to be."""
    import torch

    for layout in (legacy_bytes, zip_bytes):
        (tmp_path / "c.pt").write_bytes(layout(tensors_to_state(TENSORS)))
        state = torch.load(tmp_path / "c.pt", weights_only=True)
        assert_same({name: values.numpy() for name, values in state.items()}, TENSORS)
