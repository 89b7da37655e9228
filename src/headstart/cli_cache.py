"""The commands below ``headstart cache``. Nothing here imports a backend."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any

import typer

from headstart import terminal
from headstart.cli_weights import Json
from headstart.errors import HeadstartError

cache_app = typer.Typer(help="Stored features: what there is, checking, making room.", no_args_is_help=True)

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})|0", re.IGNORECASE | re.ASCII)


@cache_app.command("list")
def cache_list(as_json: Json = False) -> None:
    """List the stored features: of which network, how many images, how large, when they were last used."""
    from headstart.features.upkeep import compiled_networks, fitted_heads, list_stores, size_of, stores_folder

    with terminal.bar() as progress:
        stores = list_stores(progress=progress)
    rows = [
        {"path": str(store.folder), "key": store.key or None, "num_images": store.num_images,
         "bytes": store.num_bytes, "last_used": _utc(store.last_used)}
        for store in stores
    ]  # fmt: skip
    total = sum(store.num_bytes for store in stores)
    networks, heads = compiled_networks(), fitted_heads()
    compiled, fitted = size_of(networks), size_of(heads)
    if as_json:
        facts = {"folder": str(stores_folder()), "bytes": total, "stores": rows}
        counts = {"num_networks": len(networks), "network_bytes": compiled}
        terminal.print_json({**facts, **counts, "num_heads": len(heads), "head_bytes": fitted})
    elif rows:
        terminal.show_stores(stores)
    terminal.say(f"{_count(len(rows), 'set')} of features, {total / 1e6:,.1f} MB: {stores_folder()}")
    if networks:
        terminal.say(f"{_count(len(networks), 'compiled network')}, {compiled / 1e6:,.1f} MB: {networks[0].parent}")
    if heads:
        terminal.say(f"{_count(len(heads), 'fitted head')}, {fitted / 1e6:,.1f} MB: {heads[0].parent}")


@cache_app.command("verify")
def cache_verify(as_json: Json = False) -> None:
    """Read all stored features, networks and heads, and hold them against the hashes that were written with them."""
    from headstart.features.upkeep import stores_folder, verify

    with terminal.transfers() as progress:
        found = verify(progress=progress)
    _show_damaged(found.damaged)
    files = _count(found.num_shards, "file")
    spares = f" and {found.num_spares:,} of networks and heads" if found.num_spares else ""
    terminal.say(f"{files} of features{spares}, {found.num_bytes / 1e6:,.1f} MB, read in {stores_folder().parent}")
    if as_json:
        num_files = found.num_shards + found.num_spares
        facts = {"folder": str(stores_folder()), "num_files": num_files, "bytes": found.num_bytes}
        terminal.print_json({**facts, "damaged": _plain(found.damaged)})
    if found.damaged:
        raise HeadstartError(
            f"{_count(len(found.damaged), 'file')} damaged, the first being {found.damaged[0].path}. What is damaged "
            "counts as not there and is computed again when it is needed. To remove it: headstart cache prune --damaged"
        )


@cache_app.command("prune")
def cache_prune(
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Such as 500MB, 2GB or 0: the least recently used go first.")
    ] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Read everything, and remove what is damaged.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what killed processes left behind; with --max-size also what was not used for longest."""
    from headstart.features.upkeep import prune, stores_folder

    max_bytes = None if max_size is None else _bytes(max_size)
    with terminal.transfers() as progress:
        done = prune(max_bytes, damaged=damaged, progress=progress)
    _show_damaged(done.damaged)
    removed = [_count(len(done.stores), "set") + " of features", _count(done.num_leftovers, "leftover file")]
    if done.num_networks:
        removed.append(_count(done.num_networks, "compiled network"))
    if done.num_heads:
        removed.append(_count(done.num_heads, "fitted head"))
    if damaged:
        removed.append(_count(len(done.damaged), "damaged file"))
    terminal.say(f"Removed: {', '.join(removed)}; {done.freed_bytes / 1e6:,.1f} MB.")
    terminal.say(f"{done.kept_bytes / 1e6:,.1f} MB are left: {stores_folder().parent}")
    if as_json:
        facts = {"folder": str(stores_folder()), "removed": [str(folder) for folder in done.stores]}
        counts = {
            "num_networks": done.num_networks,
            "num_heads": done.num_heads,
            "num_leftovers": done.num_leftovers,
            "freed_bytes": done.freed_bytes,
            "bytes": done.kept_bytes,
        }
        terminal.print_json({**facts, "damaged": _plain(done.damaged), **counts})


def _bytes(size: str) -> int:
    """A size as people write it. It needs its unit, lest 500 for 500MB remove everything."""
    match = _SIZE.fullmatch(size.strip())
    if not match:
        raise HeadstartError(f"--max-size must be a number with KB, MB, GB or TB, such as 500MB, or 0; got '{size}'.")
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match[1] else 0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _plain(damaged: Any) -> list[dict[str, str]]:
    return [{"path": str(each.path), "problem": each.problem} for each in damaged]


def _show_damaged(damaged: Any) -> None:
    for each in damaged:
        terminal.say(f"BAD  {each.path}: {each.problem}")
