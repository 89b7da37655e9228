"""Whether a step of fine-tuning is kept: what it made of the validation images, against what was there before.

It is asked of the tuned network alone, and together with the frozen one.
"""

from __future__ import annotations

import dataclasses

from scipy.special import stdtrit

from headstart.learning.held_out import HeldOut
from headstart.learning.material import Numbers
from headstart.learning.tuning import Tuned
from headstart.networks.freezing import WHOLE

LEAST_CONFIDENCE = 0.95
"""How sure it must be that the log loss of the validation images fell, for a step to be kept: in a single comparison
noise alone does that once in twenty times. By Student's t, paired: three images need 2.9 standard errors, many 1.6. Or
by Wilcoxon's signed ranks, if by t it is likely: where nearly all images are told right already, one or two make most
of the difference, and by t those are never sure. Ranks say whether the others agree."""

_LIKELY = 0.9
"""How sure it must be by t at least. Ranks alone are sure of many small gains that a few losses outweigh."""

LEAST_WITH_FROZEN = 1.0
"""By how many standard errors tuned and frozen network together must be better than the tuned one alone, since two take
twice the time and room."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step down: what was open, what came of it, what there was before, and so whether it is kept.

    Attributes:
        first: the lowest stage that was open.
        tuned: what came of it.
        before: what was said of the validation images by what there was before.
        alone: what the tuned network says of them.
        together: what it and the frozen one say of them together.
    """

    first: str
    tuned: Tuned
    before: HeldOut
    alone: HeldOut
    together: HeldOut

    @property
    def is_with_frozen(self) -> bool:
        """Whether both together are what is taken: they are surely better than the tuned network alone, or alone it is
        no sure gain.
        """
        behind = self.alone.standard_errors_behind(self.together)
        return behind > LEAST_WITH_FROZEN or not self._is_gain(self.alone, LEAST_CONFIDENCE)

    @property
    def after(self) -> HeldOut:
        """What is said of the validation images then."""
        return self.together if self.is_with_frozen else self.alone

    @property
    def is_kept(self) -> bool:
        """Whether anything was learnt, and that is a gain beyond noise."""
        is_gain = self._is_gain(self.after, LEAST_CONFIDENCE) or self._is_agreed(self.after)
        return self.tuned.best_epoch > 0 and is_gain

    def _is_gain(self, after: HeldOut, confidence: float) -> bool:
        """Whether the mean says so, by Student's t."""
        if not len(self.before):
            return True
        gain = self.before.standard_errors_behind(after)
        return bool(gain > stdtrit(len(self.before) - 1, confidence))  # Of one image: not a number.

    def _is_agreed(self, after: HeldOut) -> bool:
        """Whether the mean makes it likely, and signed ranks are sure; ranks do not know what an image weighs."""
        if self.before.weights is not None or not self._is_gain(after, _LIKELY):
            return False
        from scipy.stats import wilcoxon  # Slow to import, and only fine-tuning asks for it.

        ranks = wilcoxon(self.before.losses, after.losses, alternative="greater")
        return bool(ranks.pvalue < 1 - LEAST_CONFIDENCE)

    def sentence(self) -> str:
        """What it did to the validation images."""
        before, after = self.before, self.after
        name = "the whole network" if self.first == WHOLE else f"{self.first} and above"
        with_frozen = ", together with the frozen network" if self.is_with_frozen else ""
        figures = (
            f"log loss {before.loss:.3f} to {after.loss:.3f}, accuracy {before.accuracy:.1%} to {after.accuracy:.1%} "
            f"on {len(before)} validation images"
        )
        if not len(before):
            return f"Tuning {name}: {self.tuned.best_epoch} epochs; there were no validation images to judge it by."
        verdict = "kept" if self.is_kept else "no surer gain than noise, so it was undone"
        return " ".join(filter(None, (f"Tuning {name}{with_frozen}: {figures}; {verdict}.", self.tuned.trouble)))


def together(frozen: HeldOut, tuned: HeldOut, labels: Numbers) -> HeldOut:
    """What two say of the same images by the mean of their logits, as sharp as is best."""
    if frozen.logs is None or tuned.logs is None:
        return HeldOut.nothing()
    return HeldOut.of((frozen.logs + tuned.logs) / 2, labels, frozen.weights).sharpened(labels)
