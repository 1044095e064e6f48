"""A model and its encoder, each trained on as many images as fit into its share of the time.

python benchmarks/gpu_model.py --data critters10k.zip --seconds 400 --save model --out results.json

Writes model.safetensors, in half precision with its discriminator, and model.png; the encoder and its reconstructions
as model-encoder.safetensors and model-encoder.png; and commands, settings and logs to the results file. A short run
before each measures the pace. A run that is late is interrupted, and what it has saved is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from _results import command_line, machine, save_entry
from _training import count_parameters

import stylegan_cli
from stylegan_cli.sampling.encoders import load_encoder, save_encoder
from stylegan_cli.snapshot import load_snapshot, save_snapshot

SGAN = [sys.executable, "-m", "stylegan_cli"]
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
        trained = train([*MODEL, *where], Path(folder) / "model", lengths, start + SHARE * seconds)
        sizes = save_half(newest(trained.run, "snapshot-*.safetensors"), model)
        shutil.copy(newest(trained.run, "fakes-*.png"), model.with_suffix(".png"))
        report(trained, out, device, parameters=sizes, bytes=model.stat().st_size)
        command = [*ENCODER, "--model", str(model), *where]
        trained = train(command, Path(folder) / "encoder", lengths, start + seconds)
        save_half_encoder(newest(trained.run, "snapshot-*.safetensors"), model, encoder)
        shutil.copy(newest(trained.run, "reconstructions-*.png"), encoder.with_suffix(".png"))
        report(trained, out, device, bytes=encoder.stat().st_size)


@dataclasses.dataclass(frozen=True)
class Trained:
    run: Path  # its folder
    command: list[str]
    interrupted: bool
    seconds: float


def train(command: list[str], runs: Path, lengths: tuple[float, float], deadline: float) -> Trained:
    """Run a training command for as long as there is time, less a tenth. Raises ClickException if it fails."""
    (warm_up, most), start = lengths, time.monotonic()
    first = execute(command, runs / "pace", warm_up, deadline)
    # The first line of the log has the time of the first steps, which select algorithms and capture graphs.
    paces = [line["sec_per_kimg"] for line in stats(first.run) if "sec_per_kimg" in line][1:]
    if not paces:
        raise click.ClickException(f"{warm_up:g} kimg took too long to measure the pace of {' '.join(command)}.")
    pace, begun = statistics.fmean(paces), time.monotonic()
    startup = max(begun - start - warm_up * pace, 0.0)
    kimg = min(max((0.9 * (deadline - begun - MARGIN) - startup) / pace, warm_up), most)
    kimg = float(int(kimg)) if kimg >= 10 else round(kimg, 3)
    print(f"{pace:.3f} s per kimg, {startup:.0f} s to start: {kimg:g} kimg", flush=True)
    return execute(command, runs / "whole", kimg, deadline)


def execute(command: list[str], runs: Path, kimg: float, deadline: float) -> Trained:
    """Train into a new folder, interrupted shortly before the deadline. Raises ClickException if it fails."""
    command, start, interrupted = [*command, "--kimg", f"{kimg:g}", "--snap", f"{kimg / 4:g}"], time.monotonic(), False
    process = subprocess.Popen([*SGAN, *command, "--runs", str(runs)])
    try:
        process.wait(max(deadline - start - MARGIN, 1.0))
    except subprocess.TimeoutExpired:
        interrupted = True
        process.send_signal(signal.SIGINT)  # it finishes its step, and saves
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(MARGIN / 2)
        process.kill()
        process.wait()
    found = sorted(runs.glob("[0-9]*-*"))
    if not found or (process.returncode and not interrupted):
        raise click.ClickException(f"{' '.join(command)} ended with exit code {process.returncode}.")
    return Trained(found[-1], command, interrupted, time.monotonic() - start)


def stats(run: Path) -> list[dict[str, float]]:
    path = run / "stats.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest(run: Path, pattern: str) -> Path:
    if not (found := sorted(run.glob(pattern))):
        raise click.ClickException(f"{run.name} has no {pattern}.")
    return found[-1]


def save_half(snapshot: Path, path: Path) -> dict[str, int]:
    """Save a model in half precision. Returns the number of parameters of each network."""
    s = load_snapshot(str(snapshot))
    save_snapshot(path, s.G, s.D, s.info, torch.float16)
    return {name: count_parameters(network) for name, network in (("G", s.G), ("D", s.D)) if network}


def save_half_encoder(snapshot: Path, model: Path, path: Path) -> None:
    opened = stylegan_cli.open(model)
    encoder = load_encoder(snapshot, opened.G, opened.fingerprint)
    save_encoder(path, encoder.network, encoder.info, torch.float16)


def report(trained: Trained, out: Path | None, device: str, **facts: Any) -> None:
    print(f"{' '.join(trained.command)}: {trained.seconds:.0f} s{', interrupted' * trained.interrupted}", flush=True)
    if out is not None:
        words = [Path(word).name if Path(word).is_absolute() else word for word in trained.command]
        facts |= {"part": words[0], "trained": words, "interrupted": trained.interrupted, "seconds": trained.seconds}
        facts |= {"stats": stats(trained.run), "machine": machine(torch.device(device))}
        save_entry(out, {"command": f"{command_line(sys.argv)} ({words[0]})", **facts})


if __name__ == "__main__":
    main()
