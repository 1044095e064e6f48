"""Run folders: the next number, the snapshots in one, and which model a command means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import SganError
from ..files import nearest_path
from .records import GAN, read_config, recipe_of

PACKAGED_MODEL = Path(__file__).parents[1] / "assets" / "critters.safetensors"

_RUN = re.compile(r"([0-9]{5,})-.+")
_SNAPSHOT = re.compile(r"snapshot-([0-9]+(?:\.[0-9]+)?)\.safetensors")


def next_run_dir(
    runs: str | os.PathLike,  # the folder of all runs, made if it is not there
    description: str,  # usually data and preset, 'faces-auto'
) -> Path:
    """Make the folder of a new run, `00000-<description>` with the next free number, and return it.

    Two processes never get the same number. Raises SganError if the folder cannot be written.
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
        raise SganError(f"Cannot make a run folder in {runs}: {e.strerror or e}.") from e


def snapshot_name(
    kimg: float,  # thousands of images that the model has seen
) -> str:
    """The file name of a snapshot; thousandths are shown only where there are any."""
    whole, fraction = divmod(round(kimg * 1000), 1000)
    return f"snapshot-{whole:06d}" + (f".{fraction:03d}" if fraction else "") + ".safetensors"


def list_runs(
    runs: str | os.PathLike,  # the folder of all runs; need not exist
) -> list[Path]:
    """The folders of all runs by their numbers, the newest last."""
    runs = Path(runs)
    return [folder for _, folder in sorted(_numbered(runs))] if runs.is_dir() else []


def snapshots(
    folder: str | os.PathLike,  # of one run
) -> list[Path]:
    """Those of a run, the one that has seen the most images last."""
    found = [(float(m[1]), p) for p in Path(folder).iterdir() if (m := _SNAPSHOT.fullmatch(p.name))]
    return [p for _, p in sorted(found)]


def latest_snapshot(
    folder: str | os.PathLike,  # of one run
) -> Path | None:
    """The snapshot of a run that has seen the most images; None if there is none."""
    found = snapshots(folder)
    return found[-1] if found else None


def newest_run(
    runs: str | os.PathLike,  # the folder of all runs; need not exist
) -> Path | None:
    """The run with the highest number that has a model; None if there is none. Snapshots of other recipes are none."""
    folders = (folder for folder in reversed(list_runs(runs)) if latest_snapshot(folder))
    return next((folder for folder in folders if recipe_of(read_config(folder)) in (None, GAN)), None)


def find_run(
    run: str | os.PathLike | None,  # a folder, the name or the number of one under `runs`; None: the newest
    runs: str | os.PathLike,  # the folder of all runs
) -> Path:
    """The run that is meant, with a snapshot or without. Raises SganError if there is none."""
    folders = list_runs(runs)
    if run is None:
        if not folders:
            raise SganError(f"There is no run under {runs}.", hint="Begin one: sgan train")
        return folders[-1]
    if re.fullmatch("[0-9]{1,9}", str(run)):
        for number, folder in _numbered(Path(runs)) if folders else ():
            if number == int(str(run)):
                return folder
    for folder in (Path(run), Path(runs) / run):
        if os.path.isdir(folder) and _holds_run(folder):
            return folder
    if os.path.isdir(run):  # Path.is_dir raises where a name is too long
        raise SganError(f"The folder {run} holds no run.", hint=f"Those there are: sgan runs --runs {run}")
    hint = nearest_path(Path(runs) / run) or f"Those there are: sgan runs --runs {runs}"
    raise SganError(f"There is no run {run} under {runs}.", hint=hint)


def find_model(
    model: str | os.PathLike | None,  # a file; a run folder: its newest snapshot; None: newest of `runs`, else packaged
    runs: str | os.PathLike,  # the folder of all runs
) -> tuple[Path, str]:
    """The model file that is meant, and a sentence that says which it is.

    Raises SganError if there is no such file, or no snapshot in the folder.
    """
    if model is not None:
        return _given_model(Path(model))
    if (run := newest_run(runs)) and (path := latest_snapshot(run)):
        return path, f"Model: {path}, the newest under {runs}."
    if PACKAGED_MODEL.is_file():
        return PACKAGED_MODEL, f"Model: {PACKAGED_MODEL.name}, which comes with the package (nothing under {runs} yet)."
    raise SganError(f"There is no model: no run under {runs} has a snapshot.", hint="Train one: sgan train")


def _given_model(path: Path) -> tuple[Path, str]:
    if path.is_file():
        return path, f"Model: {path}."
    if not path.is_dir():
        raise SganError(f"There is no file or folder {path}.", hint=nearest_path(path))
    if snapshot := latest_snapshot(path):
        return snapshot, f"Model: {snapshot}, the newest of its run."
    run = newest_run(path)
    hint = f"Did you mean --model {run}?" if run else f"Snapshots are called {snapshot_name(0)} and so on."
    raise SganError(f"The folder {path} holds no snapshot.", hint=hint)


def _numbered(runs: Path) -> list[tuple[int, Path]]:
    return [(int(m[1]), p) for p in runs.iterdir() if (m := _RUN.fullmatch(p.name)) and p.is_dir()]


def _holds_run(folder: Path) -> bool:
    known = bool(_RUN.fullmatch(folder.resolve().name)) or (folder / "config.json").is_file()
    return known or (folder / "stats.jsonl").is_file() or latest_snapshot(folder) is not None


def _claim(runs: Path, number: int) -> bool:
    """Try to make `.<number>`. Only its maker may turn it into a run folder, so a number is given once."""
    claim = runs / f".{number:05d}"
    try:
        claim.mkdir()
    except FileExistsError:
        return False
    if any(n == number for n, _ in _numbered(runs)):  # given away since we looked
        claim.rmdir()
        return False
    return True
