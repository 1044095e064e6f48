"""`sgan explore` as a process: where it listens, what it prints, how it ends; other models than the bundled one."""

import builtins
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot


@pytest.fixture
def start(start_explorer, tmp_path):
    """Start explorers that end with the test."""
    started = []

    def run(*options, folder=tmp_path):
        started.append(start_explorer(folder, *options))
        return started[-1]

    yield run
    for explorer in started:
        explorer.process.kill()
        explorer.process.communicate()


def test_ctrl_c_ends_it_in_good_order(start):
    explorer = start()
    body = json.dumps({"job": "a", "keys": [1, 2], "frames": 600})
    connection = explorer.connect("POST", "/api/export", body)  # work that goes on
    connection.getresponse().readline()
    explorer.process.send_signal(signal.SIGINT)
    stdout, stderr = explorer.process.communicate(timeout=20)
    connection.close()
    assert explorer.process.returncode == 0
    assert stdout == "" and stderr.endswith("Stopped.\n") and "Traceback" not in stderr
    assert list(explorer.out.iterdir()) == []  # nothing half-written


def test_a_port_in_use(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        explorer = start("--port", port)
        assert explorer.port != port and explorer.request("GET", "/")[0] == 200
        explorer.process.send_signal(signal.SIGINT)
        assert f"Port {port} is in use; using {explorer.port}." in explorer.process.communicate(timeout=20)[1]


def test_two_explorers_and_two_pages(start, tmp_path):
    """Each has a token of its own, and each page its answers."""
    first, second = start("--port", 9210), start("--port", 9210, "--outdir", tmp_path / "other")
    assert first.token != second.token
    assert second.request("GET", "/api/model", headers={"Authorization": f"Bearer {first.token}"})[0] == 401
    (a,), _ = first.frames("/api/images", items=[1])
    (b,), _ = second.frames("/api/images", items=[1])
    assert np.array_equal(a, b)
    assert first.post("/api/command", items=[1])["command"] == "sgan generate --seeds 1", "that of the bundled model"
    kept = [first.post("/api/keep", kind="image", items=[1])["item"] for _ in range(2)]
    assert len(set(kept)) == 2 and second.get("/api/items")["items"] == []


def test_wrong_hosts_and_folders(sgan, tmp_path):
    assert (
        "Cannot listen on 203.0.113.7" in sgan("explore", "--host", "203.0.113.7", "--outdir", tmp_path, code=1).stderr
    )
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in sgan("explore", "--outdir", file / "out", code=1).stderr
    assert "no-such" in sgan("explore", "--model", tmp_path / "no-such", code=1).stderr


def test_a_damaged_model(sgan, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"\0" * 100)
    assert "damaged.safetensors" in sgan("explore", "--model", path, code=1).stderr


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra(sgan, monkeypatch, package):
    imported = builtins.__import__

    def without(name, *args, **options):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'stylegan-cli[web]'" in sgan("explore", code=1).stderr


def test_a_browser_that_is_not_there(tmp_path):
    """The address is printed, and the server goes on."""
    command = [sys.executable, "-m", "stylegan_cli", "explore", "--port", "9310", "--json"]
    env = os.environ | {"PATH": "", "HOME": str(tmp_path), "BROWSER": "/no/such/browser", "DISPLAY": ":9"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=env, **pipes) as process:
        assert json.loads(process.stdout.readline())["address"].startswith("http://127.0.0.1:")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert "No browser could be opened" in process.communicate(timeout=20)[1]
    assert process.returncode == 0


def test_a_run_shows_its_snapshots(start, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "00000-copy")
    explorer = start("--model", run)
    model, found = explorer.get("/api/model"), explorer.get("/api/snapshots")
    assert model["run"] and not found["training"] and len(found["snapshots"]) >= 2
    assert model["channels"] == 4 and (model["width"], model["height"]) == (48, 24)
    names = [snapshot["name"] for snapshot in found["snapshots"]]
    assert [snapshot["kimg"] for snapshot in found["snapshots"]] == sorted(s["kimg"] for s in found["snapshots"])
    images = [explorer.frames("/api/images", items=[3], snapshot=name) for name in names]
    assert not np.array_equal(images[0][0], images[-1][0])
    assert names[0] in images[0][1][0]
    (newest,), _ = explorer.frames("/api/images", items=[3])
    assert np.array_equal(images[-1][0][0], newest)
    assert newest[..., 3].min() < 255  # alpha stays
    new = run / "snapshot-000009.safetensors"
    shutil.copy(run / names[0], new)  # training goes on
    assert explorer.get("/api/snapshots")["snapshots"][-1]["name"] == new.name


def test_a_model_with_classes(start, class_run):
    explorer = start("--model", class_run)
    classes = explorer.get("/api/model")["classes"]
    assert [c["name"] for c in classes] == ["flat", "none", "tall"]
    images = [explorer.frames("/api/images", items=[3], **{"class": c["index"]}) for c in classes]
    assert not np.array_equal(images[0][0], images[1][0]) and "--class 2" in images[2][1][0]
    status, _, content = explorer.request("POST", "/api/images", json.dumps({"items": [0], "class": 3}))
    assert status == 400 and "no class 3" in json.loads(content)["error"]


def test_a_model_whose_image_can_be_moved(start, moving_generator, tmp_path):
    G = moving_generator(16, 128, 8)
    assert isinstance(G.config, StyleGAN3Config)
    path = tmp_path / "moving.safetensors"
    save_snapshot(path, G, None, SnapshotInfo(G.config))
    explorer = start("--model", path)
    model = explorer.get("/api/model")
    assert model["transform"] and not model["encoder"] and not model["discriminator"]
    (still,), _ = explorer.frames("/api/images", items=[1])
    (moved,), commands = explorer.frames("/api/images", items=[1], translate=[0.25, 0], rotate=10)
    assert not np.array_equal(still, moved)
    assert "--translate 0.25,0" in commands[0] and "--rotate 10" in commands[0]
