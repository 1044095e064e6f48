"""A running explorer, and a client that talks to it as the page does."""

import http.client
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

pytest.importorskip("starlette", reason="the extra 'web' is not installed")


@dataclass
class Explorer:
    """A process of `sgan explore`, in a folder of its own."""

    process: subprocess.Popen
    address: str  # of the page, with the token
    folder: Path

    @property
    def port(self):
        return urlsplit(self.address).port

    @property
    def token(self):
        return self.address.partition("token=")[2]

    @property
    def out(self):
        return self.folder / "out" / "explore"

    def connect(self, method, path, body=None, headers=None, token=True):
        """Send a request, whose answer can be read from the connection."""
        own = {"Authorization": f"Bearer {self.token}"} if token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, own | (headers or {}))
        return connection

    def request(self, method, path, body=None, headers=None, token=True):
        """Status, headers (lower case), content."""
        connection = self.connect(method, path, body, headers, token)
        try:
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, content = self.request("GET", path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path, /, status=200, **body):
        found, _, content = self.request("POST", path, json.dumps(body))
        assert found == status, content
        return json.loads(content)

    def frames(self, path, /, **body):
        """Images [N, H, W, 4], and the commands."""
        status, headers, content = self.request("POST", path, json.dumps(body))
        assert status == 200, content
        shape = [int(headers[f"x-{name}"]) for name in ("count", "height", "width")]
        return np.frombuffer(content, np.uint8).reshape(*shape, 4), unquote(headers["x-command"]).splitlines()

    def events(self, path, /, **body):
        """The events of long work, the last one first."""
        status, _, content = self.request("POST", path, json.dumps(body))
        assert status == 200, content
        return [json.loads(line) for line in reversed(content.splitlines())]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


def _start(folder, *options):
    """Start `sgan explore` and wait for its address."""
    command = [sys.executable, "-m", "stylegan_cli", "explore", "--no-open", "--device", "cpu", *map(str, options)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    assert address.startswith("http://"), process.communicate()[1]
    return Explorer(process, address, Path(folder))


@pytest.fixture(scope="session")
def start_explorer():
    """Start `sgan explore` in a folder: start_explorer(folder, '--port', 9000) -> Explorer."""
    return _start


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    """Of a small StyleGAN2."""
    found = _start(tmp_path_factory.mktemp("explorer"), "--model", MODEL)
    yield found
    found.stop()
