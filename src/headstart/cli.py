"""The command line: parse, call one function of `workflow`, print. Nothing here imports a backend by itself."""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart import terminal
from headstart.cli_cache import cache_app
from headstart.cli_models import models
from headstart.cli_weights import Json, weights_app
from headstart.errors import HeadstartError, StoppedError
from headstart.terminal import print_json as _print_json

if TYPE_CHECKING:
    from headstart.learning.classifier import Prediction

app = typer.Typer(
    name="headstart",
    help="From a folder of labelled pictures to a classifier you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(weights_app, name="weights")
app.add_typer(cache_app, name="cache")

# Typer carries Click's errors with it, or takes them from Click, and exports only this child of theirs.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="A folder with one sub-folder per class, or a manifest (.csv, .jsonl, .parquet)."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that 'headstart fit' made.")]
Out = Annotated[Path | None, typer.Option(help="The run folder. Default: the next free one below runs/.")]


def _size(text: str) -> int | None:
    if text.lower() == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is neither a number of pixels nor auto.") from None


ImageSize = Annotated[
    int | None,
    typer.Option(parser=_size, metavar="PIXELS|auto", help="Side in pixels. Default: chosen on the training images."),
]


def _rate(text: str) -> float | str:
    try:
        return "auto" if text.lower() == "auto" else float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is neither a learning rate such as 1e-4 nor auto.") from None


LearningRate = Annotated[
    str | None,
    typer.Option(
        parser=_rate,
        metavar="RATE|auto",
        help="Of fine-tuning; auto: found by a range test. Default: what is usual for the optimizer.",
    ),
]


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"headstart {version('headstart')}\n")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    images: Annotated[str, typer.Option(help="Which published images: textile or solar-cells.")] = "textile",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Do the main job on published images with real ImageNet weights, both fetched with pip."""
    from headstart import workflow
    from headstart.pictures.published import find_images

    published = find_images(images)
    terminal.say(f"{published.description}. Licence: {published.licence}.")
    terminal.say(f"From the package {published.package} {published.version}. {published.note}")
    with terminal.bar() as progress:
        run = workflow.demo(images, out=out, progress=progress)
    _show_run(run, as_json)


@app.command()
def fit(
    data: Data,
    backbone: Annotated[
        str, typer.Option(help="Keras's name, see 'headstart models'; or auto: compared on your images.")
    ] = "MobileNetV2",
    weights: Annotated[str, typer.Option(help="auto, imagenet, kerashub, packaged, none, or a path.")] = "auto",
    head: Annotated[str, typer.Option(help="linear, nearest (class mean), mlp (Dense 256) or flatten.")] = "linear",
    ensemble: Annotated[
        bool, typer.Option("--ensemble/--no-ensemble", help="With --backbone auto: the two best together, if better.")
    ] = False,
    fine_tune: Annotated[
        str, typer.Option(help="off, auto (as far as it helps; from 200 pictures on), the lowest stage to learn, all.")
    ] = "off",
    image_size: ImageSize = None,
    views: Annotated[
        str, typer.Option(help="one, flips (average with mirror images), many (flips at two scales), auto (chosen).")
    ] = "auto",
    class_weights: Annotated[
        str,
        typer.Option(help="off, balanced (each class counts alike), auto (if unbalanced, tried in the linear head)."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the split and the training.")] = 0,
    epochs: Annotated[
        int, typer.Option(help="At most, of a head that is trained in epochs, or of a step of tuning.")
    ] = 20,
    optimizer: Annotated[str, typer.Option(help="Of fine-tuning: adamw or sgd.")] = "adamw",
    lr: LearningRate = None,
    track: Annotated[
        str, typer.Option(help="off, tensorboard or mlflow: where the curves of a training are drawn.")
    ] = "off",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train a classifier on labelled pictures: evaluation, report and model in a run folder."""
    from headstart import workflow

    with terminal.bar() as progress:
        run = workflow.fit(
            data, out=out, track=track, progress=progress, tell=terminal.show_epoch, backbone=backbone,
            weights=weights, head=head, ensemble=ensemble, fine_tune=fine_tune, image_size=image_size, views=views,
            class_weights=class_weights, seed=seed, epochs=epochs, optimizer=optimizer, lr=lr,
        )  # fmt: skip
    _show_run(run, as_json)


@app.command()
def compare(
    data: Data,
    backbones: Annotated[str, typer.Option(help="Names with commas between, or seed (eight), hub or all.")] = "seed",
    weights: Annotated[str, typer.Option(help="auto, imagenet, kerashub, packaged or none.")] = "auto",
    image_size: ImageSize = None,
    budget: Annotated[float | None, typer.Option(metavar="MINUTES", help="How long it may take.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the folds and the parts of the images.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder. Default: the next free one below runs/.")] = None,
    as_json: Json = False,
) -> None:
    """Rank networks on labelled pictures: accuracy, interval, ties, latency, size."""
    from headstart import comparing

    with terminal.race() as (progress, tell):
        compared = comparing.compare(
            data, backbones=backbones, weights=weights, image_size=image_size, budget=budget, seed=seed, out=out,
            tell=tell, progress=progress,
        )  # fmt: skip
    terminal.show_comparison(compared)
    if as_json:
        _print_json(compared.summary())


@app.command()
def evaluate(run: RunFolder, data: Data, as_json: Json = False) -> None:
    """Score a run's classifier on labelled pictures; those it was trained on are left out."""
    from headstart import workflow

    with terminal.bar() as progress:
        found = workflow.evaluate(run, data, progress=progress)
    if found.num_left_out:
        terminal.say(f"{found.num_left_out:,} images were left out: the run was trained on them.")
    terminal.show_skipped(found.skipped)
    terminal.show_evaluation(found.evaluation)
    if as_json:
        summary = {"run": str(run), "num_left_out": found.num_left_out, "num_skipped": len(found.skipped)}
        _print_json({**summary, "test": found.evaluation.summary()})


@app.command()
def report(run: RunFolder, as_json: Json = False) -> None:
    """Draw a run's report anew. No backend is needed."""
    from headstart import workflow
    from headstart.reporting.report import plain_text

    path, content = workflow.report(run)
    terminal.say(plain_text(content))
    terminal.say(f"\nReport: {path}")
    if as_json:
        _print_json({"run": str(run), "report": str(path), "test": content.evaluation.summary()})


@app.command()
def predict(
    run: RunFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Picture files, or folders of them.")],
    as_json: Json = False,
) -> None:
    """Say what is on pictures."""
    from headstart import workflow

    with terminal.bar() as progress:
        predictions = workflow.predict(run, paths, progress=progress)
    if as_json:
        _print_json([_plain(each) for each in predictions])
    else:
        terminal.show_predictions(predictions)
    if predictions and all(each.error for each in predictions):
        raise HeadstartError(f"None of the {len(predictions)} files could be read.")


def _plain(each: Prediction) -> dict[str, Any]:
    if each.error:
        return {"path": each.path, "error": each.error}
    several = {"labels": list(each.labels)} if each.is_multi_label else {}
    return {
        "path": each.path,
        "label": each.label,
        **several,
        "probability": each.probability,
        "probabilities": each.probabilities,
    }


app.command()(models)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a problem with what was given, 2 usage, 130 interrupted."""
    terminal.prepare()
    # Else Python, on leaving, looks through all of TensorFlow for garbage, which takes most of a second.
    atexit.register(gc.freeze)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; never a traceback for what a user can mend."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="headstart")
        sys.stdout.flush()
        if code == 130:  # What Typer makes of Ctrl-C.
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        terminal.complain("Interrupted. What was computed is kept: the same command goes on from there.")
        return 130
    except HeadstartError as error:
        terminal.complain(str(error))
        return 130 if isinstance(error, StoppedError) else 1
    except (BrokenPipeError, SystemExit):  # A reader such as `head` has had enough; Typer makes a SystemExit of it.
        terminal.hang_up()
        return 0
    except OSError as error:
        terminal.complain(_wording(error))
        return 1


def _wording(error: OSError) -> str:
    from headstart.cache import cache_folder

    place = f"{error.filename}: " if error.filename else ""
    said = f"{place}{error.strerror or error}. Is the disk full, or the folder not yours to write?"
    if isinstance(error.filename, str) and Path(error.filename).is_relative_to(cache_folder("")):
        said += " HEADSTART_CACHE can name another folder for the cache."
    return said


def _show_run(run: Any, as_json: bool) -> None:
    terminal.show_run(run)
    if as_json:
        _print_json(run.summary())
