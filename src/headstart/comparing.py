"""Networks compared on a folder of pictures, as one function, and the choice of one for `fit`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import DataError, HeadstartError, WeightsError
from headstart.networks.catalogue import choose_backbones, find_backbone
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights, find_weights, ways_out
from headstart.pictures.folder import ImageFolder
from headstart.pictures.scan import scan
from headstart.pictures.split import split_images
from headstart.progress import Budget, Progress, TimeIsUpError, silent
from headstart.recipe import Recipe
from headstart.reporting import runs
from headstart.reporting.compared import draw_comparison
from headstart.scoring.comparison import Comparison, Ranked

_ENLARGED = 1.2  # Weights may ask for a pixel or a patch more than the network's own size; that is no step up.

Tell = Callable[[Ranked], None]


def _silent(ranked: Ranked) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        path: its folder.
        comparison: the ranking, and what there is to say of it.
    """

    path: Path
    comparison: Comparison

    @property
    def best(self) -> Ranked:
        """The network that is right most often."""
        return self.comparison.best

    def summary(self) -> dict[str, Any]:
        """What ``headstart compare --json`` prints."""
        return {"path": str(self.path), **self.comparison.to_json()}


def compare(
    data: str | Path | ImageFolder,
    *,
    backbones: str | Sequence[str] = "seed",
    weights: str | Mapping[str, str] = "auto",
    budget: float | None = None,
    out: str | Path | None = None,
    tell: Tell = _silent,
    progress: Progress = silent,
    **choices: Any,
) -> Compared:
    """Rank networks by what they are worth on these images. The test images of `fit` play no part.

    Args:
        data: a folder, a manifest, or what `scan` returned.
        backbones: names, or "seed", "hub" or "all"; as one text, with commas between.
        weights: as for `fit`, for all networks; or for each by its name, "auto" for those that are not named.
        budget: minutes that it may take, or None.
        out: the folder; by default the next free one below ``runs/``.
        tell: called with a network each time it was judged.
        progress: called with a step, how much is done and how much there is.
        **choices: the fields of `Recipe` that matter: image_size, seed, test, val.

    Raises:
        HeadstartError: with one message that says what to do.
    """
    start = time.perf_counter()
    if budget is not None and not budget > 0:
        raise DataError(f"--budget must be more than 0 minutes; got {budget:g}.")
    names = backbones.split(",") if isinstance(backbones, str) else backbones
    recipe = Recipe(**choices)
    contest = _Contest(choose_backbones([name.strip() for name in names]), weights, recipe)
    folder = data if isinstance(data, ImageFolder) else scan(data, progress=progress)
    folder, splits = split_images(folder, seed=recipe.seed, test=recipe.test, val=recipe.val)
    identity = {"comparison": contest.to_json(), "data": runs.data_hash(folder)}
    path = runs.start_run(out, folder, identity, "-compare")
    end = None if budget is None else start + 60 * budget
    try:
        comparison = contest.hold(folder, splits, end, tell=tell, progress=progress)
    except (HeadstartError, OSError):
        runs.discard_run(path)
        raise
    comparison = dataclasses.replace(comparison, seconds=time.perf_counter() - start)
    with runs.writing(path):
        runs.reopen_run(path, identity)
        runs.write_json(path / runs.COMPARISON_FILE, comparison.to_json())
        draw_comparison(path, folder.root.resolve().name, runs.now(), comparison)
        runs.finish_run(path)
    return Compared(path, comparison)


@dataclasses.dataclass(frozen=True)
class Settled:
    """What a comparison settles for `fit`.

    Attributes:
        recipe: the one that was asked for, with a network in it.
        notes: how it was chosen.
        partner: the best of the others, where two may see together; None where they may not, or there is none.
    """

    recipe: Recipe
    notes: tuple[str, ...]
    partner: BackboneSpec | None = None


def settle(recipe: Recipe, folder: ImageFolder, splits: Sequence[str], progress: Progress = silent) -> Settled:
    """Choose a network for a recipe: of the eight, the fastest of the best."""
    contest = _Contest(choose_backbones(["seed"]), recipe.weights, recipe)
    comparison = contest.hold(folder, splits, None, progress=progress)
    chosen, tied = comparison.chosen, [each for each in comparison.ranking if each.tied_with_best]
    others = [f"{each.backbone} {each.accuracy:.1%}" for each in comparison.ranking if each != chosen]
    also = f"the fastest of {len(tied)} that cannot be told apart, " if len(tied) > 1 else ""
    against = f", against {', '.join(others)}" if others else ""
    notes = [
        f"{chosen.backbone} at {chosen.image_size} px was chosen on training images: {also}cross-validated accuracy "
        f"{chosen.accuracy:.1%}{against}."
    ]
    if comparison.left_out:
        names = ", ".join(comparison.left_out)
        notes.append(f"Not compared, since their weights could not be had: {names}.")
    settled = dataclasses.replace(recipe, backbone=chosen.backbone, ensemble=False)
    if recipe.head == "flatten":  # A larger image would only give it more weights.
        return Settled(settled, tuple(notes))
    settled = dataclasses.replace(settled, image_size=chosen.image_size)
    is_enlarged = chosen.image_size > _ENLARGED * find_backbone(chosen.backbone).image_size
    if recipe.image_size is None and recipe.views == "auto" and is_enlarged:
        settled = dataclasses.replace(settled, views="one")  # Both steps up would cost twelve times as much.
    partner = next((each.backbone for each in comparison.ranking if each != chosen), None) if recipe.ensemble else None
    if recipe.ensemble and partner is None:
        notes.append(f"There is no second network that {chosen.backbone} could be tried together with.")
    return Settled(settled, tuple(notes), find_backbone(partner) if partner else None)


@dataclasses.dataclass(frozen=True)
class _Contest:
    """Who is compared, and how."""

    specs: Sequence[BackboneSpec]
    weights: str | Mapping[str, str]
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        weights = self.weights if isinstance(self.weights, str) else dict(self.weights)
        recipe = {name: getattr(self.recipe, name) for name in ("image_size", "seed", "test", "val")}
        return {"backbones": [spec.name for spec in self.specs], "weights": weights, **recipe}

    def hold(
        self,
        folder: ImageFolder,
        splits: Sequence[str],
        end: float | None,
        *,
        tell: Tell = _silent,
        progress: Progress,
    ) -> Comparison:
        """Let the networks run against each other on the images that are not for the test, until a time at most."""
        start = time.perf_counter()
        pool = [image for image, split in zip(folder.images, splits, strict=True) if split != "test"]
        budget = Budget(end)
        networks, missing = self._find_weights(budget, progress)
        from headstart.learning.racing import compare_backbones
        from headstart.networks.backend import load_keras

        load_keras()  # It takes seconds, which must not count as the first network's.
        field = compare_backbones(pool, folder.class_names, networks, self.recipe, budget, tell=tell, progress=progress)
        random = [spec.name for spec, found in networks.items() if found.path is None]
        note = f"The weights of {', '.join(random)} are random, as asked for, so nothing was transferred there."
        several = ("A picture counts as right where every name is.",) if folder.is_multi_label else ()
        return Comparison(
            ranking=field.ranking,
            left_out={**missing, **field.left_out},
            num_images=len(pool),
            num_classes=len(folder.class_names),
            notes=(*field.notes, *([note] if random else []), *several),
            seconds=time.perf_counter() - start,
        )

    def _find_weights(self, budget: Budget, progress: Progress) -> tuple[dict[BackboneSpec, Weights], dict[str, str]]:
        """The weights that can be had, and why others cannot."""
        found: dict[BackboneSpec, Weights] = {}
        missing: dict[str, str] = {}
        for number, spec in enumerate(self.specs):
            progress("Finding weights", number, len(self.specs))
            source = self.weights if isinstance(self.weights, str) else self.weights.get(spec.name, "auto")
            try:
                found[spec] = find_weights(spec, source, progress=budget.over(progress))
            except TimeIsUpError:
                missing[spec.name] = "the time was used up before its weights were there"
            except WeightsError as error:
                missing[spec.name] = str(error).removesuffix(ways_out(spec)).strip()
        progress("Finding weights", len(self.specs), len(self.specs))
        if not found:
            first = next(iter(missing.values()))
            raise WeightsError(f"The weights of none of these {len(self.specs)} networks can be had. {first}")
        return found, missing
