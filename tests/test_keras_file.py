"""Keras's weight files, on networks of a few layers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.networks.backend import keras
from headstart.networks.keras_file import read_keras_weights
from tiny import damaged

LAYOUTS = pytest.mark.parametrize("layout", ["w.h5", "w.weights.h5"])


def network(*, names=("a", "b", "c"), channels=4, norm="norm", seed=0, **more):
    """Convolutions of one shape in a row and a normalisation; a name of None is made up by Keras."""
    pixels = keras.Input((8, 8, channels))
    tensor = pixels
    for name in names:
        tensor = keras.layers.Conv2D(channels, 1, name=name)(tensor)
    model = keras.Model(pixels, keras.layers.BatchNormalization(name=norm, **more)(tensor))
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1, tuple(weight.shape)))
    return model


def save(path, model):
    """With Keras's own writers."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        with h5py.File(path, "w") as file:
            sys.modules["keras.src.legacy.saving.legacy_h5_format"].save_weights_to_hdf5_group(file, model)
    return path


def read(path, model, name="Tiny"):
    """Layer name -> arrays."""
    return {layer.name: arrays for layer, arrays in read_keras_weights(path, name, model)}


def assert_same(found, *pairs):
    """Each pair: a layer's name, and the layer whose weights it should have."""
    assert sorted(found) == sorted(name for name, _ in pairs)
    for name, layer in pairs:
        for ours, theirs in zip(found[name], layer.get_weights(), strict=True):
            assert np.array_equal(ours, theirs), name


def refusal(path, model, name="Tiny"):
    with pytest.raises(WeightsError) as error:
        read(path, model, name)
    return str(error.value).removeprefix(str(path))


# --- what goes where --------------------------------------------------------------------------------------------------


@LAYOUTS
def test_layers_go_by_name_where_the_order_differs(tmp_path, layout):
    theirs = network(names=("b", "c", "a"))
    found = read(save(tmp_path / layout, theirs), network(seed=1))
    assert_same(found, *((name, theirs.get_layer(name)) for name in ("a", "b", "c", "norm")))


@LAYOUTS
def test_made_up_names_go_by_order(tmp_path, layout):
    """By its name, "conv2d_1" of the file would go to the first layer of the network; and 10 comes after 9, not 1."""
    keras.utils.clear_session(free_memory=False)
    theirs = network(names=(None,) * 12, norm=None)
    path = save(tmp_path / layout, theirs)
    keras.utils.clear_session(free_memory=False)
    network(names=(None,), norm=None)
    ours = network(names=(None,) * 12, norm=None, seed=1)
    assert [layer.name for layer in theirs.layers[1:4]] == ["conv2d", "conv2d_1", "conv2d_2"]
    assert [layer.name for layer in ours.layers[1:4]] == ["conv2d_1", "conv2d_2", "conv2d_3"]
    pairs = zip(ours.layers[1:], theirs.layers[1:], strict=True)
    assert_same(read(path, ours), *((layer.name, same) for layer, same in pairs))


@LAYOUTS
def test_named_and_made_up_names_go_each_their_way(tmp_path, layout):
    keras.utils.clear_session(free_memory=False)
    theirs = network(names=("b", None, "a", None))
    ours = network(names=(None, "a", "b", None), seed=1)
    of, by = [layer for layer in theirs.layers if "conv2d" in layer.name], theirs.get_layer
    made_up = [layer.name for layer in ours.layers if "conv2d" in layer.name]
    found = read(save(tmp_path / layout, theirs), ours)
    assert_same(found, ("a", by("a")), ("b", by("b")), ("norm", by("norm")), *zip(made_up, of, strict=True))


@LAYOUTS
def test_renamed_layers_go_by_order(tmp_path, layout):
    theirs = network(names=("x", "b", "y"))
    found = read(save(tmp_path / layout, theirs), network(seed=1))
    assert_same(found, *((ours, theirs.get_layer(other)) for ours, other in zip(("a", "b", "c", "norm"), ("x", "b", "y", "norm"), strict=True)))  # fmt: skip


def test_names_with_slashes_are_those_that_keras_3_writes_without(tmp_path):
    theirs = network(names=("b", "c", "a"))
    path = save(tmp_path / "w.h5", theirs)
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        file.attrs["layer_names"] = [f"block/{name}".encode() for name in names]
        for name in names:
            file.move(name, f"block/{name}")
    found = read(path, network(names=("block_a", "block_b", "block_c"), norm="block_norm"))
    assert_same(found, *((f"block_{name}", theirs.get_layer(name)) for name in ("a", "b", "c", "norm")))


def test_lists_that_keras_splits_are_joined(tmp_path):
    """An attribute of HDF5 holds 64 kB; Keras numbers the parts."""
    theirs = network()
    path = save(tmp_path / "w.h5", theirs)
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    assert_same(read(path, network(seed=1)), *((name, theirs.get_layer(name)) for name in ("a", "b", "c", "norm")))


@LAYOUTS
def test_the_classifier_is_left_aside(tmp_path, layout):
    theirs = network()
    tensor = keras.layers.Dense(3, name="predictions")(keras.layers.Dense(2, name="fc1")(theirs.output))
    path = save(tmp_path / layout, keras.Model(theirs.input, tensor))
    assert_same(read(path, network(seed=1)), *((name, theirs.get_layer(name)) for name in ("a", "b", "c", "norm")))


def test_weights_in_bfloat16_are_read(tmp_path):
    theirs = network(dtype="bfloat16")
    for weight in theirs.weights:
        weight.assign(np.full(tuple(weight.shape), 0.5))
    found = read(save(tmp_path / "w.weights.h5", theirs), network())
    assert {str(array.dtype) for array in found["norm"]} == {"float32"}
    assert all((array == 0.5).all() for arrays in found.values() for array in arrays)


def test_random_numbers_in_nested_layers_are_no_weights(tmp_path):
    """As in ConvNeXt: a Sequential in the network; Dropout keeps a seed."""

    def nested():
        keras.utils.set_random_seed(1)
        pixels = keras.Input((8, 8, 4))
        tensor = keras.layers.Dropout(0.5)(pixels)
        for name in ("one", "two"):
            inner = [
                keras.layers.Conv2D(4, 1, name=f"{name}_conv"),
                keras.layers.LayerNormalization(name=f"{name}_norm"),
            ]
            tensor = keras.Sequential(inner, name=name)(tensor)
        return keras.Model(pixels, tensor)

    theirs = nested()
    inner = [layer for each in ("one", "two") for layer in theirs.get_layer(each).layers]
    path = save(tmp_path / "w.weights.h5", theirs)
    with h5py.File(path, "a") as file:  # Keras 3.15 leaves the seed out; a file that has one is no other network.
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    assert_same(read(path, nested()), *((layer.name, layer) for layer in inner))
    assert_same(
        read(save(tmp_path / "w.h5", theirs), nested()), *((name, theirs.get_layer(name)) for name in ("one", "two"))
    )


# --- what does not fit ------------------------------------------------------------------------------------------------


@LAYOUTS
def test_says_what_is_missing_and_unexpected(tmp_path, layout):
    path = save(tmp_path / layout, network(names=("a", "x", "y", "z")))
    assert refusal(path, network()) == (
        " does not fit Tiny: 2 layers are missing ('b', 'c'), 3 layers are unexpected ('x', 'y', 'z'). Nothing was "
        "loaded. Give weights of Tiny without changes to its layers, or another --backbone."
    )


@LAYOUTS
def test_says_which_shapes_differ(tmp_path, layout):
    path = save(tmp_path / layout, network(names=("a", "b", "x"), scale=False))
    ours = network()
    with h5py.File(path, "a") as file:
        inside = file["layers/conv2d/vars"] if "layers" in file else file["a"]
        names = {}
        inside.visititems(lambda name, item: names.update({item.shape: name} if isinstance(item, h5py.Dataset) else {}))
        del inside[names[1, 1, 4, 4]]
        inside[names[1, 1, 4, 4]] = np.zeros((3, 3, 4, 4), np.float32)
    assert refusal(path, ours) == (
        " does not fit Tiny: 2 layers have other shapes, from the network's to the file's ('a' from (1, 1, 4, 4) + "
        "(4,) to (3, 3, 4, 4) + (4,), 'norm' from (4,) + (4,) + (4,) + (4,) to (4,) + (4,) + (4,)). Nothing was "
        "loaded. Give weights of Tiny without changes to its layers, or another --backbone."
    )
    path = save(tmp_path / layout, network(names=("a", "b", "x"), channels=2))
    assert "'c (x in the file)' from (1, 1, 4, 4) + (4,) to (1, 1, 2, 2) + (2,)" in refusal(path, ours)


def test_names_in_a_message_are_short_and_plain(tmp_path):
    path = save(tmp_path / "w.weights.h5", network(names=("a",)))
    with h5py.File(path, "a") as file:
        file["layers/\x1b[2J/vars/0"] = file["layers/" + "long" * 1000 + "/vars/0"] = np.zeros(1)
    text = refusal(path, network(names=("a",)))
    assert "2 layers are unexpected ('\\x1b[2J', 'longlong" in text
    assert len(text) < 400


def test_knows_keras_files_by_their_name(tmp_path):
    path = save(tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", network())
    text = refusal(path, network(names=("a",)), "VGG19")
    assert text.endswith("Its name is that of VGG16's: use --backbone VGG16, or give weights of VGG19.")
    assert "Its name" not in refusal(path, network(names=("a",)), "VGG16")


@LAYOUTS
@pytest.mark.parametrize(("place", "value", "problem"), [
    (3, -0.5, "negative variances (the smallest is -0.5)"), (0, np.nan, "numbers that are NaN or infinite"),
    (2, -np.inf, "numbers that are NaN or infinite"),
])  # fmt: skip
def test_numbers_that_no_trained_network_has_are_refused(tmp_path, layout, place, value, problem):
    theirs = network()
    theirs.get_layer("norm").weights[place].assign([0.5, 0.5, value, 0.5])
    assert refusal(save(tmp_path / layout, theirs), network()) == (
        f": layer 'norm' has {problem}. Nothing was loaded; the file is damaged, or its training diverged. Give "
        "another one."
    )


def test_negative_means_are_fine(tmp_path):
    theirs = network()
    theirs.get_layer("norm").weights[2].assign([-1, -1, -1, -1])
    assert read(save(tmp_path / "w.h5", theirs), network())["norm"][2].min() == -1


# --- hostile files ----------------------------------------------------------------------------------------------------


def change(path, *, name="a", dataset=None):
    """Put another dataset in the place of a layer's first one."""
    with h5py.File(path, "a") as file:
        group = file[name]
        inside = group[group.attrs["weight_names"][0].rpartition("/")[0]]
        del inside["kernel"]
        dataset(inside, "kernel")
    return path


def test_links_to_other_files_are_not_followed(tmp_path):
    other = save(tmp_path / "other.h5", network())
    kernel = next(name for name in h5py.File(other)["a"].attrs["weight_names"] if "kernel" in name)
    path = save(tmp_path / "w.h5", network())
    change(path, dataset=lambda group, name: group.__setitem__(name, h5py.ExternalLink(str(other), f"a/{kernel}")))
    assert "is missing, or lies in another file" in refusal(path, network())
    change(path, name="b", dataset=lambda group, name: group.__setitem__(name, h5py.SoftLink("/a")))
    assert "is missing, or lies in another file" in refusal(path, network())


@pytest.mark.parametrize("name", ["model_weights", "layers", "layers/conv2d", "layers/conv2d/vars/0"])
def test_no_other_file_is_opened(tmp_path, name):
    """A pipe that nobody writes to would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    path = save(tmp_path / "w.weights.h5", network())
    with h5py.File(path, "a") as file:
        if file.get(name, getlink=True):
            del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
    assert f"{name.rpartition('/')[2]} is missing, or lies in another file" in refusal(path, network())


def test_numbers_in_other_files_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    path = save(tmp_path / "w.h5", network())
    external = [(str(tmp_path / "secret"), 0, 64)]
    change(path, dataset=lambda group, name: group.create_dataset(name, (1, 1, 4, 4), "f4", external=external))
    assert (
        refusal(path, network())
        == " was not read: layer 'a' keeps its numbers in another file, or in pieces larger than itself."
    )
    layout = h5py.VirtualLayout((1, 1, 4, 4), "f4")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (1, 1, 4, 4))
    path = save(tmp_path / "w.h5", network())
    change(path, dataset=lambda group, name: group.create_virtual_dataset(name, layout))
    assert (
        refusal(path, network())
        == " was not read: layer 'a' keeps its numbers in another file, or in pieces larger than itself."
    )


def test_pieces_that_unpack_to_gigabytes_are_not_unpacked(tmp_path):
    huge = {"maxshape": (None, 1, 4, 4), "chunks": (2**24, 1, 4, 4), "compression": "gzip"}
    path = save(tmp_path / "w.h5", network())
    change(path, dataset=lambda group, name: group.create_dataset(name, (1, 1, 4, 4), "f4", **huge))
    assert "in pieces larger than itself" in refusal(path, network())


def test_groups_that_lead_back_come_to_an_end(tmp_path):
    path = save(tmp_path / "w.weights.h5", network())
    with h5py.File(path, "a") as file:
        for number in range(30):
            file["layers"][f"again_{number}"] = file["layers"]
    assert refusal(path, network()) == " was not read: its groups have no end."


@pytest.mark.parametrize("values", [np.array(b"text"), np.zeros((1, 1, 4, 4), "S4"), np.zeros((1, 1, 4, 4), complex)])
def test_what_is_no_number_is_refused(tmp_path, values):
    path = save(tmp_path / "w.h5", network())
    change(path, dataset=lambda group, name: group.create_dataset(name, data=values))
    assert "other shape" in refusal(path, network()) or "not numbers" in refusal(path, network())


def test_other_hdf5_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["table"] = np.zeros(3)
    assert refusal(tmp_path / "w.h5", network()) == " is an HDF5 file, but holds no weights as Keras writes them."
    Path(tmp_path / "w.h5").write_bytes(b"nothing")
    assert " is not a Keras weights file, or is damaged (" in refusal(tmp_path / "w.h5", network())


def without_long_texts(path):
    """As Keras's downloads are: HDF5 itself can loop for ever in the heap where texts of any length lie, if damaged."""
    with h5py.File(path, "a") as file:

        def plain(_, item):
            for name, value in list(item.attrs.items()):
                del item.attrs[name]
                if name in {"layer_names", "weight_names"}:
                    item.attrs[name] = np.array([str(each) for each in value], "S")

        plain("", file)
        file.visititems(plain)
    return path


@LAYOUTS
def test_files_without_names_of_layers_or_long_texts_are_read(tmp_path, layout):
    theirs = network()
    path = without_long_texts(save(tmp_path / layout, theirs))
    assert_same(read(path, network(seed=1)), *((name, theirs.get_layer(name)) for name in ("a", "b", "c", "norm")))


@LAYOUTS
def test_flipped_bytes_raise_nothing_else(tmp_path, layout):
    data = without_long_texts(save(tmp_path / layout, network(names=("a",)))).read_bytes()
    ours = network(names=("a",))
    refused = 0
    for broken in damaged(data, 200, 19):
        (tmp_path / "broken.h5").write_bytes(broken)
        try:
            read(tmp_path / "broken.h5", ours)
        except WeightsError:
            refused += 1
    assert refused > 50
