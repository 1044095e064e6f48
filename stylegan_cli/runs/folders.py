"""Run folders: numbering new ones, and finding runs, snapshots and models."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import SganError
from ..files import suggest_path
from .records import GAN, read_config, recipe_of

PACKAGED_MODEL = Path(__file__).parents[1] / "assets" / "critters.safetensors"

_RUN = re.compile(r"([0-9]{5,})-.+")
_SNAPSHOT = re.compile(r"snapshot-([0-9]+(?:\.[0-9]+)?)\.safetensors")


def next_run_dir(
    runs: str | os.PathLike,  # the folder of all runs, created if it does not exist
    description: str,  # usually dataset and preset, 'faces-auto'
) -> Path:
    """Create the folder of a new run, `00000-<description>` with the next free number, and return it.

    Two processes never get the same number. Raises SganError if the folder cannot be created.
    """
    runs = Path(runs)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", description)[:100].strip("-.") or "run"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        number = max((n for n, _ in _numbered(runs)), default=-1) + 1
        while not _claim(runs, number):
            number += 1
        return (runs / f".{number:05d}").rename(runs / f"{number:05d}-{name}")
    except OSError as e:
        raise SganError(f"Cannot create a run folder in {runs}: {e.strerror or e}.") from e


def snapshot_name(
    kimg: float,  # thousands of images that the model has seen
) -> str:
    """The file name of a snapshot; thousandths are omitted if they are 0."""
    whole, fraction = divmod(round(kimg * 1000), 1000)
    return f"snapshot-{whole:06d}" + (f".{fraction:03d}" if fraction else "") + ".safetensors"


def list_runs(
    runs: str | os.PathLike,  # the folder of all runs; need not exist
) -> list[Path]:
    """The folders of all runs by number, the newest last."""
    runs = Path(runs)
    return [folder for _, folder in sorted(_numbered(runs))] if runs.is_dir() else []


def snapshots(
    folder: str | os.PathLike,  # of one run
) -> list[Path]:
    """The snapshots of a run by kimg, the latest last."""
    numbered = [(float(m[1]), p) for p in Path(folder).iterdir() if (m := _SNAPSHOT.fullmatch(p.name))]
    return [p for _, p in sorted(numbered)]


def latest_snapshot(
    folder: str | os.PathLike,  # of one run
) -> Path | None:
    """The snapshot of a run with the highest kimg; None if there is none."""
    paths = snapshots(folder)
    return paths[-1] if paths else None


def newest_run(
    runs: str | os.PathLike,  # the folder of all runs; need not exist
) -> Path | None:
    """The run with the highest number that has a model; None if there is none. Only GAN runs have models."""
    folders = (folder for folder in reversed(list_runs(runs)) if latest_snapshot(folder))
    return next((folder for folder in folders if recipe_of(read_config(folder)) in (None, GAN)), None)


def find_run(
    run: str | os.PathLike | None,  # a folder, the name or the number of one under `runs`; None: the newest
    runs: str | os.PathLike,  # the folder of all runs
) -> Path:
    """Find a run, with or without a snapshot. Raises SganError if there is none."""
    folders = list_runs(runs)
    if run is None:
        if not folders:
            raise SganError(f"There are no runs in {runs}.", hint="Start one with `sgan train`, or use --runs.")
        return folders[-1]
    if re.fullmatch("[0-9]{1,9}", str(run)):
        for number, folder in _numbered(Path(runs)) if folders else ():
            if number == int(str(run)):
                return folder
    for folder in (Path(run), Path(runs) / run):
        if os.path.isdir(folder) and _is_run(folder):
            return folder
    if os.path.isdir(run):  # Path.is_dir raises where a name is too long
        raise SganError(
            f"The folder {run} is not a run folder.", hint=f"`sgan runs --runs {run}` lists the runs in it."
        )
    hint = suggest_path(Path(runs) / run) or f"`sgan runs --runs {runs}` lists them."
    raise SganError(f"There is no run {str(run)!r} in {runs}.", hint=hint)


def find_model(
    model: str | os.PathLike | None,  # file; run folder: its latest snapshot; None: newest of `runs`, else bundled
    runs: str | os.PathLike,  # the folder of all runs
) -> tuple[Path, str]:
    """Find a model file; also return a sentence that says which one it is.

    Raises SganError if there is no such file, or no snapshot in the folder.
    """
    if model is not None:
        return _find_in(Path(model))
    if (run := newest_run(runs)) and (path := latest_snapshot(run)):
        return path, f"Model: {path}, the newest in {runs}."
    if PACKAGED_MODEL.is_file():
        return PACKAGED_MODEL, f"Model: {PACKAGED_MODEL.name}, the bundled one (no models in {runs} yet)."
    raise SganError(f"No run in {runs} has a snapshot yet.", hint="Train a model with `sgan train`, or use --model.")


def _find_in(path: Path) -> tuple[Path, str]:
    if path.is_file():
        return path, f"Model: {path}."
    if not path.is_dir():
        raise SganError(f"{path} does not exist.", hint=suggest_path(path))
    if snapshot := latest_snapshot(path):
        return snapshot, f"Model: {snapshot}, the latest of its run."
    run = newest_run(path)
    hint = f"Did you mean --model {run}?" if run else f"Snapshots have names such as {snapshot_name(0)}."
    raise SganError(f"{path} contains no snapshot.", hint=hint)


def _numbered(runs: Path) -> list[tuple[int, Path]]:
    return [(int(m[1]), p) for p in runs.iterdir() if (m := _RUN.fullmatch(p.name)) and p.is_dir()]


def _is_run(folder: Path) -> bool:
    is_named = bool(_RUN.fullmatch(folder.resolve().name)) or (folder / "config.json").is_file()
    return is_named or (folder / "stats.jsonl").is_file() or latest_snapshot(folder) is not None


def _claim(runs: Path, number: int) -> bool:
    """Try to create `.<number>`. Only its creator may rename it to a run folder, so that each number is used once."""
    claim = runs / f".{number:05d}"
    try:
        claim.mkdir()
    except FileExistsError:
        return False
    if any(n == number for n, _ in _numbered(runs)):  # taken since the folders were listed
        claim.rmdir()
        return False
    return True
