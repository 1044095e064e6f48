"""Which requests the explorer answers, and that the others leave no trace."""

import json
import random
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

OWN = ("GET", "/api/model")


def test_the_page_needs_no_token_and_every_call_does(explorer):
    assert explorer.request("GET", "/", token=False)[0] == 200
    for method, path in (OWN, ("POST", "/api/images"), ("GET", "/api/files/x.png"), ("GET", "/api/nothing")):
        status, _, content = explorer.request(method, path, token=False)
        assert status == 401 and "token" in json.loads(content)["error"]
    assert explorer.request(*OWN, headers={"Authorization": "Bearer " + "x" * 32})[0] == 401
    assert explorer.request("GET", f"/api/model?token={explorer.token}", token=False)[0] == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1"])
def test_other_hosts_are_refused(explorer, host):
    """A name that leads to this machine (DNS rebinding) is not the explorer's."""
    assert explorer.request(*OWN, headers={"Host": host.format(port=explorer.port)})[0] in (400, 421)
    assert explorer.request("GET", "/", headers={"Host": host.format(port=explorer.port)})[0] in (400, 421)


def test_own_names_are_accepted(explorer):
    for host in (f"localhost:{explorer.port}", f"127.0.0.1:{explorer.port}"):
        assert explorer.request(*OWN, headers={"Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://evil.example:{port}"])
def test_other_pages_are_refused(explorer, origin):
    headers = {"Origin": origin.format(port=explorer.port)}
    assert explorer.request("POST", "/api/images", '{"items": [0]}', headers)[0] == 403


def test_cross_site_requests_are_refused(explorer):
    assert explorer.request(*OWN, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403


def test_answers_forbid_what_the_page_does_not_need(explorer):
    headers = explorer.request("GET", "/", token=False)[1]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


@pytest.mark.parametrize(
    "path",
    ["/page/../guard.py", "/page/%2e%2e/guard.py", "/page/..%2fguard.py", "/page/none.js", "//etc/passwd", "/.."],
)
def test_no_other_file_of_the_package_is_sent(explorer, path):
    assert explorer.request("GET", path)[0] == 404


@pytest.mark.parametrize(
    "name", ["../secret.png", "..%2Fsecret.png", "/etc/passwd", "a/b/c.png", "link.png", "deep/link.png"]
)
def test_files_outside_the_folder_are_not_sent(explorer, name):
    secret = explorer.out.parent / "secret.png"
    explorer.out.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(b"secret")
    for link in (explorer.out / "link.png", explorer.out / "deep"):
        if not link.is_symlink():
            link.symlink_to(secret if link.suffix else secret.parent)
    (explorer.out.parent / "link.png").write_bytes(b"secret")
    status, _, content = explorer.request("GET", f"/api/files/{name}")
    assert status in (400, 404) and b"secret" not in content.replace(b"secret.png", b"")


def test_uploads_are_bounded(explorer):
    status, _, content = explorer.request("POST", "/api/images", b" " * (2**20 + 1))
    assert status == 413 and "too large" in json.loads(content)["error"]
    assert explorer.request("POST", "/api/photo", b"\0" * (2**25 + 1))[0] == 413


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 10**6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbroken", bomb(), b"<svg></svg>"])
def test_uploads_that_are_no_images_are_refused(explorer, content):
    before = sorted(explorer.out.glob("photo-*")) if explorer.out.is_dir() else []
    status, _, answer = explorer.request("POST", "/api/photo", content)
    assert status == 400 and json.loads(answer)["error"]
    assert (sorted(explorer.out.glob("photo-*")) if explorer.out.is_dir() else []) == before


def memory_of(process):
    """Resident memory in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def crowd(explorer):
    """100 requests at the same time."""
    body = json.dumps({"items": list(range(16))})
    with ThreadPoolExecutor(100) as threads:
        return list(threads.map(lambda _: explorer.request("POST", "/api/images", body)[0], range(100)))


def hostile_request(explorer, rng):
    """Send one of the requests that nobody should send; return the status."""
    paths = ["images", "mix", "grid", "edit", "keep", "walk", "project", "drag", "find", "export", "stop", "encode"]
    path = "/api/" + rng.choice([*paths, "files/../x", "files/%00", "model", "nothing", "photo"])
    names = ["items", "base", "donors", "rows", "cols", "layers", "keys", "item", "edits", "trunc", "size", "job"]
    values = [None, True, -1, 2**64, 1e308, float("nan"), "", "../../etc/passwd", "x" * 5000, [], [[]] * 50, {}, "\0"]
    values += [[0] * 1000, [{"item": 0, "layers": list(range(300))}], {"a": {"b": {}}}, "ä€😀", [1, 2]]
    body = json.dumps({rng.choice(names): rng.choice(values) for _ in range(rng.randrange(6))})
    kind = rng.randrange(8)
    if kind == 0:
        body = rng.randbytes(rng.randrange(2000))
    if kind == 1:
        body = "[" * rng.randrange(1, 5000)
    if kind == 2:
        body = json.dumps({"items": [rng.randrange(2**32)], "trunc": rng.uniform(-9, 9), "size": rng.randrange(9999)})
    headers = {}
    if kind == 3:
        headers = {"Authorization": rng.choice(["", "Bearer", "Bearer x", "Basic eDp5"])}
    if kind == 4:
        headers = {"Origin": rng.choice(["http://evil.example", "null", "file://"])}
    if kind == 5:
        headers = {"Host": rng.choice(["evil.example", "localhost", "0.0.0.0:80"])}
    method = rng.choice(["POST"] * 6 + ["GET", "PUT", "DELETE", "OPTIONS", "TRACE"])
    return explorer.request(method, path, body, headers)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_requests_do_no_harm(explorer):
    """1,000 requests, some of them in parallel: the server lives, writes nothing elsewhere, and does not grow."""
    rng = random.Random(1)
    for _ in range(100):
        hostile_request(explorer, rng)
    crowd(explorer)
    outside = {path for path in explorer.folder.rglob("*") if explorer.out not in path.parents}
    before = memory_of(explorer.process)
    seeds = [rng.randrange(2**32) for _ in range(900)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda seed: hostile_request(explorer, random.Random(seed)), seeds))
    assert set(found) <= {200, 400, 401, 403, 404, 405, 413, 421, 503}, sorted(set(found))
    answers = crowd(explorer)
    assert set(answers) <= {200, 503} and answers.count(200) >= 40
    assert explorer.request(*OWN)[0] == 200
    assert {path for path in explorer.folder.rglob("*") if explorer.out not in path.parents} == outside
    assert memory_of(explorer.process) - before < 50
