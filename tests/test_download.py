"""Downloads from a server that cuts connections, returns errors and sends wrong data."""

import hashlib
import subprocess
import sys
import urllib.request

import pytest

from stylegan_cli import cache, download
from stylegan_cli.download import fetch
from stylegan_cli.errors import SganError

BODY = bytes(range(256)) * 400
RIGHT = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(server):
    server.body = BODY
    return server


def cached(name):
    return cache.folder("downloads") / name


def cached_files():
    return sorted(p.name for p in cache.folder("downloads").iterdir() if not p.name.startswith("."))


def test_a_file_is_downloaded_once(server):
    path = fetch(server.url, RIGHT, "weights.bin")
    assert path == cached("weights.bin") and path.read_bytes() == BODY
    assert fetch(server.url, RIGHT, "weights.bin") == path
    assert server.ranges == [None] and cached_files() == ["weights.bin"]


def test_without_a_writable_cache_a_temporary_folder_is_used(server, tmp_path, monkeypatch, capsys):
    """And a file that is in the cache all the same is found there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file"))
    path = fetch(server.url, RIGHT, "weights.bin")
    assert path == cache.temporary_folder() / "downloads" / "weights.bin" and path.read_bytes() == BODY
    assert capsys.readouterr().err.startswith(f"{cached('')} is not writable; weights.bin is downloaded to ")
    assert fetch(server.url, RIGHT, "weights.bin") == path and server.ranges == [None]
    monkeypatch.setattr(cache, "places", lambda kind: [tmp_path, cache.temporary_folder() / kind])
    (tmp_path / "weights.bin").write_bytes(BODY)
    assert fetch(server.url, RIGHT, "weights.bin") == tmp_path / "weights.bin"


def test_without_a_hash_any_content_is_accepted(server):
    assert fetch(server.url, None, "weights.bin").read_bytes() == BODY


def test_an_interrupted_download_resumes(server):
    server.cut = 30_000
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_later_call_resumes(server):
    server.cut = 0
    part = cached("weights.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY[:50_000])
    with pytest.raises(SganError, match=r"weights\.bin cannot be downloaded .*: the connection was cut\.$") as e:
        fetch(server.url, RIGHT, "weights.bin")
    assert RIGHT in e.value.hint and str(part.with_suffix("")) in e.value.hint
    assert len(server.ranges) == download.MAX_ATTEMPTS and part.stat().st_size == 50_000
    server.cut = None
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY
    assert server.ranges[-1] == "bytes=50000-" and cached_files() == ["weights.bin"]


def test_a_server_without_ranges(server):
    server.resumes, server.cut = False, 30_000
    with pytest.raises(SganError, match="the connection was cut"):
        fetch(server.url, RIGHT, "weights.bin")
    server.cut = None
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY


def test_a_file_with_a_wrong_hash_is_discarded(server):
    with pytest.raises(SganError, match=f"has the SHA-256 {RIGHT}, not {'0' * 64}"):
        fetch(server.url, "0" * 64, "weights.bin")
    assert cached_files() == []


@pytest.mark.parametrize("length", [1000, len(BODY), len(BODY) + 5])
def test_a_partial_download_of_a_different_file_is_discarded(server, length):
    part = cached("weights.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * length)
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY
    assert server.ranges == [f"bytes={length}-", None]


def test_a_damaged_file_in_the_cache_is_replaced(server):
    path = fetch(server.url, RIGHT, "weights.bin")
    path.write_bytes(BODY[:-1])
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY


def test_temporary_server_errors_are_retried(server):
    server.responses = [(503, {}), (429, {})]
    assert fetch(server.url, RIGHT, "weights.bin").read_bytes() == BODY


def test_a_missing_file_is_requested_once(server):
    server.responses = [(404, {})]
    with pytest.raises(SganError, match="HTTP 404"):
        fetch(server.url, RIGHT, "weights.bin")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Too large to scan", b"\xef\xbb\xbf\n<html>"])
def test_a_web_page_is_not_the_file(server, page):
    """And what is already there is kept."""
    part = cached("weights.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY[:50_000])
    server.body, server.resumes = page, False
    with pytest.raises(SganError, match=f"^{server.url} is a web page, not the file weights.bin itself") as e:
        fetch(server.url, None, "weights.bin")
    assert e.value.hint == f"Open it in a browser, download the file, and put it at {cached('weights.bin')}."
    assert cached_files() == ["weights.bin.part"] and part.read_bytes() == BODY[:50_000] and len(server.ranges) == 1


def test_a_refused_connection(server):
    url = "http://127.0.0.1:9/weights.bin"
    with pytest.raises(SganError, match=r"Connection refused\.$") as e:
        fetch(url, RIGHT, "weights.bin")
    assert e.value.hint.startswith("Run again later, or put the file at ")  # there is nothing to resume


def test_redirects_are_followed_but_not_to_local_files(server, tmp_path):
    (tmp_path / "secret").write_bytes(BODY)
    server.responses = [(302, {"Location": server.url})]
    assert fetch(server.url, RIGHT, "a.bin").read_bytes() == BODY
    server.responses = [(302, {"Location": f"file://{tmp_path}/secret"})]
    with pytest.raises(SganError, match="cannot be downloaded"):
        fetch(server.url, RIGHT, "b.bin")


def test_redirects_from_https_to_http_are_not_followed(server):
    """Tests the handler directly, to avoid a server with a certificate."""
    redirects, request = download._Redirects(), urllib.request.Request("https://host/a")
    with pytest.raises(SganError, match="redirects to http://host/a, which is not https; .* was not followed"):
        redirects.redirect_request(request, None, 302, "Found", {}, "http://host/a")
    assert redirects.redirect_request(request, None, 302, "Found", {}, "https://host/b").full_url == "https://host/b"
    assert [type(h) for h in download._opener().handle_open["https"]] == [urllib.request.HTTPSHandler]
    followers = download._opener().handle_error["http"][302]
    assert [type(h) for h in followers] == [download._Redirects]


@pytest.mark.parametrize("length", ["many", "-5", "1e3", "9" * 5000])
def test_an_invalid_content_length(server, length):
    server.responses = [(200, {"Content-Length": length})]
    with pytest.raises(SganError, match="which is not a valid length"):
        fetch(server.url, RIGHT, "weights.bin")


def test_an_endless_response(server, monkeypatch):
    """Without a Content-Length, the size is limited."""
    server.responses = [(200, {"Content-Length": None})] * 2
    assert fetch(server.url, None, "a.bin").read_bytes() == BODY
    monkeypatch.setattr(download, "_MAX_SIZE", len(BODY) - 1)
    with pytest.raises(SganError, match="sends more data for b.bin than allowed"):
        fetch(server.url, None, "b.bin")
    assert cached("b.bin.part").stat().st_size == 0 and not cached("b.bin").exists()


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://host/weights.bin", "weights.bin"])
def test_other_url_schemes_are_refused(server, url):
    with pytest.raises(SganError, match="only https and http are supported"):
        fetch(url, RIGHT, "weights.bin")


def test_offline(server, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    with pytest.raises(SganError) as e:
        fetch(server.url, RIGHT, "weights.bin")
    assert all(word in str(e.value) for word in ("weights.bin", "SGAN_OFFLINE", server.url, RIGHT))
    assert e.value.hint == f"Put the file at {cached('weights.bin')}."
    monkeypatch.setenv("SGAN_OFFLINE", "0")
    path = fetch(server.url, RIGHT, "weights.bin")
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    assert fetch(server.url, RIGHT, "weights.bin") == path and len(server.ranges) == 1


def test_where_nothing_can_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(SganError, match="Cannot write .*weights.bin: Not a directory"):
        fetch(server.url, RIGHT, "weights.bin")


def test_two_processes_download_once(server):
    server.pause = 0.5
    code = f"from stylegan_cli.download import fetch; print(fetch({server.url!r}, {RIGHT!r}, 'weights.bin'))"
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert outputs == {str(cached("weights.bin"))}
    assert server.ranges == [None] and cached_files() == ["weights.bin"]
