"""Bars on stderr, with the time that is left; none where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tqdm import tqdm

from .. import distributed

Track = Callable[[Sequence], Iterable]  # goes through a sequence and shows how far it is


def untracked(items: Sequence) -> Iterable:
    return items


def bar(
    show: bool,  # false: never; else where stderr is a terminal, on the first rank
    title: str,
    **options: Any,  # of tqdm
) -> tqdm:
    return tqdm(desc=title, disable=None if show and distributed.rank() == 0 else True, leave=False, **options)
