"""Downloads into the cache: resumable, verified by hash, atomic."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from . import cache
from .errors import SganError
from .files import sync_folder
from .progress import bars_disabled
from .version import __version__

TIMEOUT = 30.0  # seconds without a byte
MAX_ATTEMPTS = 5  # consecutive attempts without progress
RETRY_DELAY = 1.0  # seconds before the second attempt, doubled for each further one
_BLOCK = 1 << 20  # bytes
_MAX_SIZE = 4 << 30  # bytes accepted from a server that does not announce a length
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def fetch(
    url: str,  # https or http
    sha256: str | None,  # hash of the file in hexadecimal; None: not verified
    name: str,  # file name in the cache
) -> Path:
    """The path of a file in the cache, downloaded if necessary, among the temporary files if the cache cannot be
    written (see `cache.places`). Safe if several processes do it at once.

    Raises SganError if SGAN_OFFLINE is set, the address or the hash is wrong, or the network or the disk fails.
    """
    places = cache.places("downloads")
    for path in (place / name for place in places):
        if _is_valid(path, sha256):
            return path
    path = places[-1] / name
    if urlsplit(url).scheme not in ("https", "http"):
        raise SganError(f"{name} cannot be downloaded from {url}: only https and http are supported.")
    if is_offline():
        message = f"{name} must be downloaded from {url}{_hash(sha256)}, but SGAN_OFFLINE is set."
        raise SganError(message, hint=f"Put the file at {path}.")
    if len(places) > 1:
        print(f"{places[0]} is not writable; {name} is downloaded to {places[-1]}.", file=sys.stderr, flush=True)
    try:
        with cache.lock(path, f"Another process is downloading {name}; waiting for it."):
            if not _is_valid(path, sha256):  # another process may have downloaded it in the meantime
                _download(url, sha256, path)
    except OSError as e:
        hint = "Set SGAN_CACHE to a writable folder with enough space."
        raise SganError(f"Cannot write {path}: {e.strerror or e}.", hint) from e
    return path


def is_offline() -> bool:
    """Whether SGAN_OFFLINE forbids downloads."""
    return os.environ.get("SGAN_OFFLINE", "0") not in ("", "0")


def _download(url: str, sha256: str | None, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    resumed = part.is_file()
    _receive_with_retries(url, sha256, part, path)
    if sha256 and (actual := cache.sha256_of(part)) != sha256:
        part.unlink()
        if resumed:  # the first part may belong to a different file
            return _download(url, sha256, path)
        raise SganError(
            f"{path.name} from {url} has the SHA-256 {actual}, not {sha256}; the download was discarded.",
            hint=f"Put the correct file at {path}.",
        )
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def _receive_with_retries(url: str, sha256: str | None, part: Path, path: Path) -> None:
    """Receive the whole file. Raises SganError after MAX_ATTEMPTS consecutive attempts without progress."""
    attempts = 0
    while True:
        size = _size(part)
        try:
            return _receive(url, part, path)
        except urllib.error.HTTPError as e:
            if e.code == 416 and size:  # there are no further bytes; the hash shows whether the file is right
                return
            reason, final = f"HTTP {e.code} {e.reason}", e.code < 500 and e.code not in (408, 425, 429)
        except _NETWORK as e:
            reason, final = getattr(e, "reason", None) or e or type(e).__name__, False
        attempts = 1 if _size(part) > size else attempts + 1
        if final or attempts >= MAX_ATTEMPTS:
            message = f"{path.name} cannot be downloaded from {url}: {str(reason).rstrip('.')}."
            again = "Run again to resume" if _size(part) else "Run again later"
            raise SganError(message, hint=f"{again}, or put the file at {path}{_hash(sha256)}.")
        time.sleep(RETRY_DELAY * 2 ** (attempts - 1))


def _receive(url: str, part: Path, path: Path) -> None:
    """Append the missing bytes over one connection, or start over if the server does not support ranges."""
    start, name = _size(part), path.name
    headers = {"User-Agent": f"stylegan_cli/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    with _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = _content_length(response.headers.get("Content-Length"), url)
        total = start + length if length is not None else None
        block = response.read(_BLOCK)
        if not start and block.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
            hint = f"Open it in a browser, download the file, and put it at {path}."
            raise SganError(f"{url} is a web page, not the file {name} itself.", hint)
        bar = tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=bars_disabled())
        with open(part, "ab" if start else "wb") as f, bar:
            while block:
                if f.tell() + len(block) > (_MAX_SIZE if total is None else total):
                    f.truncate(0)
                    raise SganError(f"{url} sends more data for {name} than allowed; the download was discarded.")
                f.write(block)
                bar.update(len(block))
                block = response.read(_BLOCK)
    if total and _size(part) < total:
        raise ConnectionError("the connection was cut")


def _content_length(text: str | None, url: str) -> int | None:
    if text and not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise SganError(f"{url} announces {text[:40]!r} bytes, which is not a valid length.")
    return int(text) if text else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, where an attacker could replace the file."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise SganError(f"{req.full_url} redirects to {newurl}, which is not https; the redirect was not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that follows redirects, but only to web servers, never to local files."""
    opener = urllib.request.OpenerDirector()
    for name in ("Proxy", "HTTP", "HTTPS", "HTTPDefaultError", "Unknown"):
        opener.add_handler(getattr(urllib.request, f"{name}Handler")())
    opener.add_handler(_Redirects())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _is_valid(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or cache.sha256_of(path) == sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _hash(sha256: str | None) -> str:
    return f" (SHA-256 {sha256})" if sha256 else ""
