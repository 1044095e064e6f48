"""How soon the explorer shows a frame while a slider moves, and whether its memory grows.

python benchmarks/measure_explorer.py
python benchmarks/measure_explorer.py --minutes 10

For models of several sizes (the bundled one, and StyleGAN2 with random weights), moves one slider as the page does:
the next frame is requested when the last one is there. The same image is synthesized without the explorer in turns with
it. One thread each; wall time, since both processes count. --minutes: also moves sliders for so long, and compares the
server's memory at the end with that after the first minute.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import torch
from _results import command_line, machine, save_entry

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.runs.folders import PACKAGED_MODEL
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.session import Session
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

WARM_UP = 5


class Page:
    """A connection to a server, as the page's."""

    def __init__(self, process: subprocess.Popen, address: str):
        parts = urlsplit(address)
        self.process, self.token = process, parse_qs(parts.query)["token"][0]
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as browsers do

    def post(self, path: str, **body: object) -> bytes:
        self.connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {self.token}"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        return content

    def find(self, method: str, count: int) -> str:
        """The name of a new file of directions."""
        events = self.post("/api/find", job="find", method=method, count=count)
        return json.loads(events.splitlines()[-1])["result"]["file"]["file"]

    def memory(self) -> float:
        """Of the server, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def explorer(model: Path, folder: Path) -> Iterator[Page]:
    command = [sys.executable, "-m", "stylegan_cli", "explore", "--no-open", "-q", "--model", str(model)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Page(process, process.stdout.readline().strip())
        finally:
            process.send_signal(signal.SIGINT)


@click.command()
@click.option(
    "--sizes", default="64,256,1024", show_default=True, metavar="N,...", help="Sizes; 64: the bundled model."
)
@click.option("--frames", default=40, show_default=True, help="Frames of each size.")
@click.option("--minutes", default=0.0, help="Length of the test of memory.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(sizes: str, frames: int, minutes: float, out: Path | None) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in map(int, sizes.split(",")):
            path = PACKAGED_MODEL if size == 64 else random_model(folder, size)
            with explorer(path, folder) as page:
                rows.append(measure_frames(page, path, size, frames if size < 512 else max(frames // 4, 5)))
        if minutes:
            with explorer(PACKAGED_MODEL, folder) as page:
                rows.append(measure_memory(page, minutes))
    if out:
        save_entry(out, {"command": command_line(sys.argv), "machine": machine(torch.device("cpu")), "rows": rows})


def random_model(folder: Path, size: int) -> Path:
    torch.manual_seed(0)
    G = build_generator(StyleGAN2Config(size, size, channel_base=16384 if size < 512 else 32768)).eval()
    path = folder / f"random-{size}.safetensors"
    save_snapshot(path, G, None, SnapshotInfo(G.config))
    return path


def measure_frames(page: Page, path: Path, size: int, frames: int) -> dict[str, object]:
    """The time from a request to the frame, beside one synthesis alone."""
    file = page.find("sefa", 1)
    session, sampling = Session(path), SamplingOptions()
    ws, synthesize = map_seeds(session.G, [3], sampling), sampling.synthesizer(session.G)
    shown, alone = [], []
    for i in range(frames + WARM_UP):
        start = time.perf_counter()
        edits = [{"file": file, "index": 0, "strength": 3 * i / frames}]
        page.post("/api/edit", item=3, edits=edits)
        middle = time.perf_counter()
        with torch.inference_mode():
            synthesize(ws)
        shown.append(middle - start)
        alone.append(time.perf_counter() - middle)
    frame, bare = (statistics.median(times[WARM_UP:]) for times in (shown, alone))
    print(f"{size} x {size}: frame {1000 * frame:.1f} ms, synthesis alone {1000 * bare:.1f} ms, {frame / bare:.2f}x")
    seconds = {"ours": frame, "synthesis alone": bare}
    row = {"op": "explorer", "dtype": "float32", "case": f"frame of {size} x {size}", "seconds": seconds}
    return row | {"ratio": {"synthesis alone": bare / frame}, "wrong": [], "failed": {}}


def measure_memory(page: Page, minutes: float) -> dict[str, object]:
    """Move sliders of all views."""
    file = page.find("pca", 5)
    begin, first, count = time.monotonic(), 0.0, 0
    while (elapsed := time.monotonic() - begin) < 60 * minutes:
        if not first and elapsed > min(60, 20 * minutes):
            first = page.memory()
        edits = [{"file": file, "index": count % 5, "strength": count % 40 / 10 - 2}]
        page.post("/api/edit", item=count % 1000, edits=edits, trunc=count % 10 / 10)
        page.post("/api/mix", base=count, donors=[{"item": count + 1, "layers": [count % 8]}], blend=count % 10 / 10)
        page.post("/api/walk", keys=[count, 1, 2], index=count % 135)
        if count % 10 == 0:
            page.post("/api/images", items=list(range(count, count + 48)))
        count += 1
    last = page.memory()
    print(f"memory after {minutes:g} minutes, {3 * count} moves: {last:.0f} MiB, {last - first:+.1f} since the first")
    case = f"memory after {minutes:g} minutes of moving sliders, {3 * count} frames"
    row = {
        "op": "explorer",
        "dtype": "float32",
        "case": case,
        "seconds": {},
        "ratio": {"after the first": last / first},
    }
    return row | {"figures": {"MiB": last, "growth": last - first}, "wrong": [], "failed": {}}


if __name__ == "__main__":
    main()
