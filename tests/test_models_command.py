"""`headstart models`: what is listed, in which order, and what `--measure` measures."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from headstart import terminal
from headstart.features import latency
from headstart.features.latency import measure_latencies
from headstart.networks.cached import weights_folder
from headstart.networks.catalogue import CATALOGUE, SEED, find_backbone
from headstart.networks.engine import BATCH_SIZE, engine_name
from journey import call, spawn

SMALL = dataclasses.replace(find_backbone("MobileNet"), image_size=32)
BROKEN = dataclasses.replace(SMALL, name="NoSuchNetwork")


@pytest.fixture(autouse=True)
def _cache(empty_cache):
    """No weights are here."""


@pytest.fixture
def quick(monkeypatch):
    """No network runs longer than its batches need."""
    monkeypatch.setattr(latency, "_LEAST_SECONDS", 0.0)


def listed(*arguments):
    answer = call("models", *arguments, "--json")
    assert answer.code == 0, answer.err
    return answer.json["models"]


def names(*arguments):
    return [row["backbone"] for row in listed(*arguments)]


def put(name):
    weights_folder().mkdir(parents=True, exist_ok=True)
    (weights_folder() / name).write_bytes(b"weights")


# --- which ------------------------------------------------------------------------------------------------------------


def test_names_choose():
    assert sorted(names()) == sorted(names("all")) == sorted(spec.name for spec in CATALOGUE)
    assert sorted(names("seed")) == sorted(SEED)
    assert names("vgg16", "MobileNet", "VGG16") == ["MobileNet", "VGG16"]


def test_families_choose_whatever_their_capitals():
    assert {row["family"] for row in listed("--family", "resnet")} == {"ResNet"}
    assert names("--family", "vgg", "--family", "Xception") == ["VGG16", "VGG19", "Xception"]
    assert names("seed", "--family", "ResNet") == ["ResNet50", "ResNet101"]


def test_sizes_choose_up_to_the_limit_itself():
    resnet = find_backbone("ResNet50")
    assert names("seed", "--max-params", "4.253864") == ["MobileNet", "MobileNetV2"]
    assert names("seed", "--max-params", "4.253863") == ["MobileNetV2"]
    assert "ResNet50" in names("--max-mb", resnet.size_mb)
    assert "ResNet50" not in names("--max-mb", resnet.size_mb - 1)
    assert names("--max-params", "30", "--max-mb", "10") == ["MobileNetV3Small"]


def test_only_those_whose_weights_are_here():
    assert names("--cached") == []
    put(find_backbone("VGG16").weights.name)
    put(find_backbone("MobileNetV2").packaged.name)
    assert names("--cached") == ["MobileNetV2", "VGG16"]
    assert {row["backbone"]: row["cached"] for row in listed("seed")} == {
        name: name in {"MobileNetV2", "VGG16"} for name in SEED
    }


def test_nothing_to_list_is_said():
    answer = call("models", "--max-params", "0.1")
    assert (answer.code, answer.out, answer.err) == (0, "", "There is no such network.\n")
    assert "'headstart weights pull' fetches weights." in call("models", "--cached").err
    answer = call("models", "--max-params", "0.1", "--measure", "--json")
    assert answer.json == {"models": [], "engine": None, "problems": []}
    assert answer.err == ""


# --- in which order ---------------------------------------------------------------------------------------------------


def test_names_are_sorted_as_a_person_counts():
    found = names()
    assert [name for name in found if name.startswith("ResNet")] == [
        "ResNet50", "ResNet50V2", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2",
    ]  # fmt: skip
    assert found.index("ConvNeXtXLarge") < found.index("DenseNet121") < found.index("EfficientNetB0")
    assert found == names("--sort", "name")


@pytest.mark.parametrize(("order", "key"), [("params", "num_params"), ("size", "size_mb")])
def test_smallest_first(order, key):
    values = [row[key] for row in listed("--sort", order)]
    assert values == sorted(values)
    assert len(set(values)) > 1


def test_best_first_and_the_unknown_last():
    rows = listed("--sort", "top1")
    known = [row["imagenet_top1"] for row in rows if row["imagenet_top1"] is not None]
    assert [row["imagenet_top1"] for row in rows] == sorted(known, reverse=True) + [None] * (len(rows) - len(known))
    assert rows[0]["backbone"] == "ConvNeXtXLarge"
    unknown = {spec.name for spec in CATALOGUE if spec.imagenet_top1 is None}
    assert unknown
    assert {row["backbone"] for row in rows[len(known) :]} == unknown
    assert names("MobileNetV2", "VGG19", "VGG16", "--sort", "top1") == ["MobileNetV2", "VGG16", "VGG19"]  # All 71.3 %.


# --- what is printed --------------------------------------------------------------------------------------------------


def test_json_has_the_contracts_keys_and_a_few_more():
    answer = call("models", "MobileNetV2", "--json").json
    assert answer == {
        "models": [{
            "backbone": "MobileNetV2", "family": "MobileNetV2", "image_size": 224, "num_params": 3_538_984,
            "size_mb": 14, "imagenet_top1": 0.713, "preprocessing": "tf",
            "stages": ["stage1", "stage2", "stage3", "stage4", "stage5"], "weights": ["imagenet", "packaged", "none"],
            "cached": False, "licence": "Apache-2.0", "latency_ms": None,
        }],
        "engine": None,
        "problems": [],
    }  # fmt: skip


def test_the_table_is_whole_where_no_terminal_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    answer = call("models")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["backbone", "family", "px", "params", "MB", "top-1", "here", "licence"]
    assert [line.split()[0] for line in lines[1:]] == names()
    assert "…" not in answer.out
    assert answer.err == ""
    (vgg,) = [line for line in lines if line.startswith("VGG16 ")]
    assert vgg.split() == ["VGG16", "VGG", "224", "138.4M", "528", "71.3%", "no", "CC", "BY", "4.0"]
    (vit,) = [line for line in lines if line.startswith("vit_base_patch16_224_imagenet ")]
    assert vit.split()[4:7] == ["327", "-", "no"]


@pytest.mark.parametrize(
    ("width", "arguments", "left_out"),
    [(80, ["seed"], []), (79, ["convnexttiny", "inceptionresnetv2", "densenet121"], []), (80, ["all"], ["family"]),
     (78, ["all"], ["family", "licence"])],
)  # fmt: skip
def test_in_a_window_columns_are_left_out_but_nothing_is_cut(width, arguments, left_out, monkeypatch):
    class Window(terminal.io.StringIO):
        def isatty(self):
            return True

    window, rows = Window(), listed(*arguments)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(terminal.sys, "stdout", window)
    said = []
    monkeypatch.setattr(terminal, "say", said.append)
    terminal.show_models(rows, measured=False)
    lines = window.getvalue().splitlines()
    assert max(map(len, lines)) <= shutil.get_terminal_size().columns == width
    assert [line.split()[0] for line in lines[1:]] == [row["backbone"] for row in rows]
    assert [name for name in ("family", "licence") if name not in lines[0]] == left_out
    assert said == ([f"For want of room without: {', '.join(left_out)}."] if left_out else [])


@pytest.mark.parametrize("arguments", [(), ("seed", "--sort", "top1", "--family", "VGG", "--cached", "--max-mb", "9")])
def test_without_measuring_nothing_heavy_is_imported(arguments):
    code = (
        "import sys\nfrom headstart.cli import run\nassert run(sys.argv[1:]) == 0\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch', 'openvino') if name in sys.modules])"
    )
    answer = spawn("models", *arguments, code=code)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "[]"


# --- measuring --------------------------------------------------------------------------------------------------------


def test_measure_fills_in_milliseconds_and_sorts_by_them(quick):
    answer = call("models", "VGG16", "MobileNetV3Small", "--family", "MobileNetV3", "--measure", "--json")
    assert answer.code == 0, answer.err
    (row,) = answer.json["models"]
    assert row["backbone"] == "MobileNetV3Small"
    assert 0.05 < row["latency_ms"] < 5000
    assert answer.json["engine"] == engine_name()
    assert answer.json["problems"] == []
    assert f"Measuring 1 network, random weights, batches of {BATCH_SIZE}, on {engine_name()}." in answer.err
    assert f"MobileNetV3Small: {row['latency_ms']:.1f} ms an image" in answer.err
    assert not weights_folder().exists()  # Nothing was fetched.


class FakeEngine:
    """Takes so many seconds for each batch, on a clock of its own; then somebody presses Ctrl-C."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.shapes = clock, list(seconds), []

    def run(self, pixels):
        self.shapes.append((pixels.shape, str(pixels.dtype)))
        if not self.seconds:
            raise KeyboardInterrupt
        self.clock.now += self.seconds.pop(0)


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


def measure_fakes(monkeypatch, seconds_of, *arguments):
    """The command on engines that take as long as they are told to; a network without seconds fails."""
    clock = Clock()
    engines = {name: FakeEngine(clock, seconds) for name, seconds in seconds_of.items()}

    def engine(spec):
        if spec.name not in engines:
            raise RuntimeError("out of memory\nand more")
        return engines[spec.name]

    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "_engine", engine)
    return call("models", *seconds_of, *arguments, "--measure"), engines


def test_the_median_of_the_batches_after_the_first(monkeypatch):
    slow, fast = [100.0, 1.6, 3.2, 1.6, 50.0, 0.8], [100.0, *[0.16] * 13]
    answer, engines = measure_fakes(monkeypatch, {"MobileNet": slow, "VGG16": fast}, "--sort", "latency", "--json")
    assert answer.code == 0, answer.err
    assert [(row["backbone"], row["latency_ms"]) for row in answer.json["models"]] == [
        ("VGG16", pytest.approx(10)), ("MobileNet", pytest.approx(100)),
    ]  # fmt: skip
    assert engines["MobileNet"].seconds == engines["VGG16"].seconds == []  # 5 batches, or 2 seconds of them.
    assert set(engines["VGG16"].shapes) == {((BATCH_SIZE, 224, 224, 3), "uint8")}


def test_one_that_fails_does_not_lose_the_others(monkeypatch):
    answer, _ = measure_fakes(monkeypatch, {"MobileNet": [1.6] * 6}, "VGG16", "--sort", "latency")
    assert answer.code == 1
    header, first, second = answer.out.splitlines()
    assert header.split()[6] == "ms/image"
    assert first.split()[:7] == ["MobileNet", "MobileNet", "224", "4.3M", "16", "70.4%", "100.0"]
    assert second.split()[6] == "-"
    assert "error: VGG16: RuntimeError: out of memory\n" in answer.err
    assert answer.err.endswith("error: 1 of 2 could not be measured.\n")


def test_an_interrupt_shows_what_was_measured(monkeypatch):
    answer, _ = measure_fakes(monkeypatch, {"MobileNet": [1.6] * 6, "VGG16": [1.6] * 3})
    assert answer.code == 130
    assert [line.split()[6] for line in answer.out.splitlines()] == ["ms/image", "100.0", "-"]
    assert answer.err.endswith("error: Interrupted. 1 of 2 were measured.\n")


def test_progress_goes_from_nothing_to_all(quick):
    told = []
    found = list(measure_latencies([BROKEN, SMALL], progress=lambda *each: told.append(each)))
    assert [each.spec.name for each in found] == ["NoSuchNetwork", "MobileNet"]
    assert found[0].milliseconds is None
    assert found[0].problem.startswith("AttributeError: ")
    assert found[1].milliseconds > 0
    assert found[1].problem == ""
    percents = [done for _, done, _ in told]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert len(set(percents)) > 5
    assert {(step, total) for step, _, total in told} == {("Measuring (percent)", 100)}


def test_many_are_announced_before_they_begin(monkeypatch):
    monkeypatch.setattr(latency, "measure_latencies", lambda *_, **__: iter(()))
    assert "Measuring 8 networks" in (few := call("models", "seed", "--measure").err)
    assert "minutes" not in few
    assert "the largest minutes; Ctrl-C shows what is done." in call("models", "--measure").err


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["VGG61"], "There is no backbone 'VGG61'. Did you mean VGG1"),
        (["--family", "resnt"], "There is no family 'resnt'. Did you mean ResNet"),
        (["--family", "zzz"], "There is no family 'zzz'. Known: CLIP, ConvNeXt, "),
        (["--sort", "nmae"], "--sort must be one of name, params, top1, size, latency; got 'nmae'."),
        (["--sort", "latency"], "--sort latency needs --measure."),
    ],
)
def test_wrong_choices_end_with_1(arguments, said):
    assert call("models", *arguments).complaint().startswith(said)


@pytest.mark.parametrize("arguments", [["--max-params", "few"], ["--max-params", "-1"], ["--max-mb", "-1"], ["--fast"]])
def test_usage_errors_end_with_2(arguments):
    answer = call("models", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert arguments[0] in answer.err
