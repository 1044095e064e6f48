"""A model and its encoder, each trained on as many images as fit into its share of the time.

python benchmarks/gpu_model.py --data critters10k.zip --seconds 400 --out model

Writes model.safetensors, in half precision with its discriminator, and model.png; the encoder and its reconstructions
as model-encoder.safetensors and model-encoder.png. A short run before each measures the pace. A run that is late is
interrupted, and what it has saved is taken.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch
from _results import command_line, machine, save_entry

import stylegan_cli
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.sampling.encoders import load_encoder, save_encoder
from stylegan_cli.snapshot import load_snapshot, save_snapshot

# The bundled model has half as many channels, and no augmentation: it has seen each image 16 times, not hundreds.
MODEL = ["train", "--cfg", "demo", "--size", "64", "--cbase", "2048", "--cmax", "128", "--batch", "32", "--aug", "ada"]
ENCODER = ["encoder", "fit"]
SHARE = 0.7  # of the time, for the model
MARGIN = 20.0  # seconds in which an interrupted run saves, and images are written


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Dataset. Default: the bundled one.")
@click.option("--seconds", default=400.0, show_default=True, help="For everything.")
@click.option("--warm-up", default=16.0, show_default=True, help="Length in kimg of the runs that measure the pace.")
@click.option("--most", default=4000.0, show_default=True, help="Length in kimg that a run has at most.")
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--save", type=click.Path(path_type=Path), default=Path("model"), show_default=True, help="Start of names."
)
@click.option("--out", type=click.Path(path_type=Path), help="Results file.")
def main(
    data: Path | None, seconds: float, warm_up: float, most: float, device: str, save: Path, out: Path | None
) -> None:
    start, model, encoder = time.monotonic(), Path(f"{save}.safetensors"), Path(f"{save}-encoder.safetensors")
    where, lengths = ["--device", device, *(["--data", str(data)] if data else [])], (warm_up, most)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(MODEL, where, Path(folder), lengths, start + SHARE * seconds)
        save_half(newest(trained.run, "snapshot-*.safetensors"), model)
        shutil.copy(newest(trained.run, "fakes-*.png"), model.with_suffix(".png"))
        report(trained, out, device)
        trained = train(ENCODER, ["--model", str(model), *where], Path(folder), lengths, start + seconds)
        save_half_encoder(newest(trained.run, "snapshot-*.safetensors"), model, encoder)
        shutil.copy(newest(trained.run, "reconstructions-*.png"), encoder.with_suffix(".png"))
        report(trained, out, device)


@dataclasses.dataclass(frozen=True)
class Trained:
    run: Path  # its folder
    command: list[str]
    seconds_per_kimg: float  # of the short run
    seconds: float  # of the long run


def train(
    command: list[str],
    where: list[str],  # further options
    runs: Path,  # folder of the runs
    lengths: tuple[float, float],  # in kimg: of the run that measures the pace, and at most
    deadline: float,
) -> Trained:
    """Run a training command for as long as there is time, less a tenth."""
    (warm_up, most), start = lengths, time.monotonic()
    lines = stats(execute([*command, *where], runs, warm_up, deadline))
    # The first line of the log has the time of the first steps, which select algorithms and capture graphs.
    pace = statistics.fmean([line["sec_per_kimg"] for line in lines if "sec_per_kimg" in line][1:] or [math.inf])
    begun = time.monotonic()
    startup = begun - start - warm_up * pace
    kimg = (0.9 * (deadline - begun - MARGIN) - startup) / pace
    kimg = min(max(kimg, warm_up), most)
    print(f"{pace:.3f} s per kimg, {startup:.0f} s to start: {kimg:.0f} kimg", flush=True)
    run = execute([*command, *where], runs, kimg, deadline)
    return Trained(run, [*command, "--kimg", f"{kimg:.0f}"], pace, time.monotonic() - begun)


def execute(command: list[str], runs: Path, kimg: float, deadline: float) -> Path:
    """Train into a new folder, interrupted shortly before the deadline. Returns the folder."""
    options = ["--kimg", f"{kimg:.3f}", "--snap", f"{kimg / 4:.3f}", "--runs", str(runs)]
    process = subprocess.Popen([sys.executable, "-m", "stylegan_cli", *command, *options])
    try:
        process.wait(max(deadline - time.monotonic() - MARGIN, 1.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it finishes its step, and saves
        process.wait()
    if not (found := sorted(runs.glob("[0-9]*-*"))):
        raise click.ClickException(f"{' '.join(command)} ended with exit code {process.returncode}")
    return found[-1]


def stats(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def newest(run: Path, pattern: str) -> Path:
    if not (found := sorted(run.glob(pattern))):
        raise click.ClickException(f"{run.name} has no {pattern}")
    return found[-1]


def save_half(snapshot: Path, path: Path) -> None:
    """As the bundled model is saved: of the bundled dataset, which metrics and projection find anywhere."""
    s = load_snapshot(str(snapshot))
    save_snapshot(path, s.G, s.D, dataclasses.replace(s.info, data=open_dataset(None).spec), torch.float16)


def save_half_encoder(snapshot: Path, model: Path, path: Path) -> None:
    opened = stylegan_cli.open(model)
    encoder = load_encoder(snapshot, opened.G, opened.fingerprint)
    save_encoder(path, encoder.network, encoder.info, torch.float16)


def report(trained: Trained, out: Path | None, device: str) -> None:
    last = functools.reduce(operator.or_, stats(trained.run))  # of each name, the last value
    print(last, flush=True)
    if out is not None:
        facts = {"part": trained.command[0], "trained": trained.command, "seconds": trained.seconds, "last": last}
        command = f"{command_line(sys.argv)} ({trained.command[0]})"
        facts |= {"seconds_per_kimg": trained.seconds_per_kimg, "machine": machine(torch.device(device))}
        save_entry(out, {"command": command, **facts})


if __name__ == "__main__":
    main()
