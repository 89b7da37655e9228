"""What goes on in a training, told to a tool that draws it: TensorBoard or MLflow.

Both are extras, and neither decides anything: a run is the same with and without, and its folder has all figures
anyway. So one that stops listening does not stop the training; it is said in the report.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from headstart.errors import MissingExtraError, RunError, UnknownNameError

OFF = "off"
TOOLS = ("tensorboard", "mlflow")

FOLDER = "tensorboard"
"""Of TensorBoard's files, in the run folder."""

Row = Mapping[str, Any]


class Tracker:
    """Tells a tool of a run, as long as it listens.

    Attributes:
        trouble: why it listens no more, in a sentence, or "".
    """

    def __init__(self, name: str, path: Path) -> None:
        """Open a tool.

        Args:
            name: "tensorboard", "mlflow", or "off".
            path: the run folder, which exists.

        Raises:
            UnknownNameError: there is no such tool.
            MissingExtraError: it is not installed.
            RunError: it does not answer.
        """
        check_tool(name)
        tools: Mapping[str, Callable[[Path], _Tool]] = {"tensorboard": _TensorBoard, "mlflow": _Mlflow}
        self.trouble = ""
        self._name, self._tool = name, None if name == OFF else tools[name](path)

    def tell(self, row: Row) -> None:
        """Tell of an epoch, as a row of history.csv."""
        self._try(lambda tool: tool.tell(figures(row), int(row["epoch"])))

    def finish(
        self, recipe: Mapping[str, Any], history: Sequence[Row], scores: Mapping[str, float], path: Path
    ) -> None:
        """Tell what was chosen, the epochs that were not told of yet, the test scores, and where the results are."""
        for row in history:
            if "phase" not in row:  # A head's; of tuning each epoch was told of as it ended.
                self.tell(row)
        self._try(lambda tool: tool.finish(recipe, scores, path))

    def _try(self, act: Callable[[_Tool], None]) -> None:
        if self._tool is None or self.trouble:
            return
        try:
            act(self._tool)
        except Exception as error:  # Whatever it is: a training is worth more than its curves.
            self.trouble = f"--track {self._name} ended early: {_first_sentence(error)}"


def check_tool(name: str) -> None:
    """Refuse what is no tool, before any work is done.

    Raises:
        UnknownNameError: there is no such tool.
    """
    if name not in (OFF, *TOOLS):
        raise UnknownNameError("tool to track with", name, (OFF, *TOOLS))


def figures(row: Row) -> dict[str, float]:
    """The numbers of a row by the names of their curves, such as "stage5/loss"; the head's are "head/loss"."""
    curve = str(row.get("phase", "head"))
    numbers = {name: value for name, value in row.items() if name not in ("phase", "epoch")}
    return {f"{curve}/{name}": float(value) for name, value in numbers.items() if math.isfinite(value)}


class _Tool(Protocol):
    def tell(self, numbers: Mapping[str, float], epoch: int) -> None: ...

    def finish(self, recipe: Mapping[str, Any], scores: Mapping[str, float], path: Path) -> None: ...


class _TensorBoard:
    """Writes event files below the run folder: ``tensorboard --logdir runs`` draws them."""

    def __init__(self, path: Path) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise MissingExtraError("--track tensorboard", "TensorBoard", "tensorboard") from error
        self._writer = Writer(str(path / FOLDER))

    def tell(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def finish(self, recipe: Mapping[str, Any], scores: Mapping[str, float], path: Path) -> None:
        self.tell({f"test/{name}": value for name, value in scores.items()}, 0)
        self._writer.close()


class _Mlflow:
    """A run of MLflow's, wherever MLFLOW_TRACKING_URI says; the files of the run folder become its artifacts."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # It reports its use to its maker, unasked.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # It would try for minutes.
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError("--track mlflow", "MLflow", "mlflow") from error
        try:
            experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "headstart")
            self._client = mlflow.MlflowClient()
            self._run = self._client.create_run(experiment.experiment_id, run_name=path.name).info.run_id
        except Exception as error:
            raise RunError(
                f"MLflow does not answer at {mlflow.get_tracking_uri()}: {_first_sentence(error)} Set "
                "MLFLOW_TRACKING_URI to your server's address, or leave out --track mlflow."
            ) from error

    def tell(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def finish(self, recipe: Mapping[str, Any], scores: Mapping[str, float], path: Path) -> None:
        for name, choice in recipe.items():
            self._client.log_param(self._run, name, choice)
        self.tell({f"test/{name}": value for name, value in scores.items()}, 0)
        for file in sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")):
            self._client.log_artifact(self._run, str(file))
        self._client.set_terminated(self._run)


def _first_sentence(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0].rstrip(".") + "."
