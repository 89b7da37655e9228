"""The parts that a row of features is made of: each mean, maximum and deviation of a stage, by its width."""

from __future__ import annotations


class Unheard(int):
    """The width of a part that a head shall not hear: it gets no weight."""
