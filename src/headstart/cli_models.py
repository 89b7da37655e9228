"""The command ``headstart models``. It imports a backend only to measure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart import terminal
from headstart.cli_weights import Json
from headstart.errors import HeadstartError, StoppedError, UnknownNameError

if TYPE_CHECKING:
    from headstart.networks.rows import BackboneSpec

_SORTED_BY = {"name": "", "params": "num_params", "top1": "imagenet_top1", "size": "size_mb", "latency": "latency_ms"}
_MANY = 8

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Backbones, or 'seed', 'hub' or 'all'.")]


def models(
    names: Names = None,
    family: Annotated[list[str] | None, typer.Option(help="Such as ResNet; may be given again.")] = None,
    max_params: Annotated[
        float | None, typer.Option(min=0, metavar="MILLIONS", help="At most so many parameters.")
    ] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, metavar="MB", help="At most so large, in float32.")] = None,
    cached: Annotated[bool, typer.Option("--cached", help="Only those whose weights are here.")] = False,
    sort: Annotated[str, typer.Option(help="name, params, top1 (best first), size, or latency.")] = "name",
    measure: Annotated[bool, typer.Option("--measure", help="Measure milliseconds per image on this machine.")] = False,
    as_json: Json = False,
) -> None:
    """List the backbones: size, ImageNet accuracy, licence, whether the weights are here; with --measure how fast."""
    if sort not in _SORTED_BY:
        raise HeadstartError(f"--sort must be one of {', '.join(_SORTED_BY)}; got '{sort}'.")
    if sort == "latency" and not measure:
        raise HeadstartError("--sort latency needs --measure.")
    specs = _choose(names, family, max_params, max_mb)
    here = {spec.name for spec in specs if _is_here(spec)}
    specs = [spec for spec in specs if not cached or spec.name in here]
    found = _measure(specs) if measure and specs else _Measured()
    rows = [_row(spec, spec.name in here, found.milliseconds.get(spec.name)) for spec in specs]
    rows = _sorted(rows, sort)
    if as_json:
        terminal.print_json({"models": rows, "engine": found.engine, "problems": found.problems})
    elif rows:
        terminal.show_models(rows, measured=measure)
    else:
        terminal.say("There is no such network." + (" 'headstart weights pull' fetches weights." if cached else ""))
    if found.stopped:
        raise StoppedError(f"Interrupted. {len(found.milliseconds)} of {len(specs)} were measured.")
    if found.problems:
        raise HeadstartError(f"{len(found.problems)} of {len(specs)} could not be measured.")


def _choose(
    names: Sequence[str] | None, families: Sequence[str] | None, max_params: float | None, max_mb: float | None
) -> list[BackboneSpec]:
    from headstart.networks.catalogue import CATALOGUE, choose_backbones

    known = {spec.family.lower(): spec.family for spec in CATALOGUE}
    wanted = {name.lower() for name in families or known}
    for name in families or ():
        if name.lower() not in known:
            raise UnknownNameError("family", name, sorted(known.values(), key=str.lower))
    return [
        spec
        for spec in choose_backbones(names or ["all"])
        if spec.family.lower() in wanted
        and (max_params is None or spec.num_params <= max_params * 1e6)
        and (max_mb is None or spec.size_mb <= max_mb)
    ]


def _is_here(spec: BackboneSpec) -> bool:
    from headstart.networks.cached import is_cached

    return any(is_cached(spec, source) for source in spec.weight_sources if source != "none")


def _row(spec: BackboneSpec, here: bool, milliseconds: float | None) -> dict[str, Any]:
    return {
        "backbone": spec.name,
        "family": spec.family,
        "image_size": spec.image_size,
        "num_params": spec.num_params,
        "size_mb": spec.size_mb,
        "imagenet_top1": spec.imagenet_top1,
        "preprocessing": spec.preprocessing,
        "stages": list(spec.stages),
        "weights": list(spec.weight_sources),
        "cached": here,
        "licence": spec.licence,
        "latency_ms": milliseconds,
    }


def _sorted(rows: Sequence[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Smallest first, but the best accuracy first; what is not known comes last, and equals by name."""
    rows, key = sorted(rows, key=_by_name), _SORTED_BY[order]
    if not key:
        return rows
    sign = -1 if order == "top1" else 1
    return sorted(rows, key=lambda row: (row[key] is None, sign * (row[key] or 0)))


def _by_name(row: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Capitals do not matter, and ResNet50 comes before ResNet101."""
    parts: list[str] = re.findall(r"\d+|\D+", row["backbone"].lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@dataclasses.dataclass
class _Measured:
    """What was measured before the end, or before Ctrl-C."""

    engine: str | None = None
    milliseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    stopped: bool = False


def _measure(specs: Sequence[BackboneSpec]) -> _Measured:
    from headstart.features.latency import measure_latencies
    from headstart.networks.engine import BATCH_SIZE, engine_name

    found = _Measured(engine_name())
    networks = "1 network" if len(specs) == 1 else f"{len(specs)} networks"
    say_minutes = " The small ones take seconds, the largest minutes; Ctrl-C shows what is done." * (len(specs) > _MANY)
    terminal.say(f"Measuring {networks}, random weights, batches of {BATCH_SIZE}, on {found.engine}.{say_minutes}")
    try:
        with terminal.bar() as progress:
            for each in measure_latencies(specs, progress=progress):
                if each.milliseconds is None:
                    found.problems.append(f"{each.spec.name}: {each.problem}")
                    terminal.complain(found.problems[-1])
                else:
                    found.milliseconds[each.spec.name] = each.milliseconds
                    terminal.say(f"{each.spec.name}: {each.milliseconds:.1f} ms an image")
    except KeyboardInterrupt:
        found.stopped = True
    return found
