"""Files from the network, kept in the cache: resumed where they were cut, checked by hash, whole or not there."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from . import cache
from .errors import SganError
from .files import sync_folder
from .version import __version__

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second try, doubled for each one after it
_BLOCK = 1 << 20
_MAX_SIZE = 4 << 30  # bytes that a server may send without saying how many
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def fetch(
    url: str,  # https or http
    sha256: str | None,  # of the whole file, in hexadecimal digits; None: whatever comes
    name: str,  # of the file in the cache
) -> Path:
    """The file in the cache, downloaded unless it is there already. Safe while other processes do the same.

    Raises SganError if it cannot be had: SGAN_OFFLINE is set, the address or the hash is wrong, no network, no room.
    """
    path = cache.folder("downloads") / name
    if _is_right(path, sha256):
        return path
    if urlsplit(url).scheme not in ("https", "http"):
        raise SganError(f"{name} cannot be downloaded from {url}: only https and http are.")
    if is_offline():
        told = f"{name} is not here, and SGAN_OFFLINE forbids to download it from {url}{_hash(sha256)}."
        raise SganError(told, hint=f"Put it at {path}.")
    try:
        with cache.lock(path, f"Another process downloads {name}; waiting for it."):
            if not _is_right(path, sha256):  # it may have come while this process waited
                _download(url, sha256, path)
    except OSError as e:
        hint = "Set SGAN_CACHE to a folder of your own that has room."
        raise SganError(f"Cannot write {path}: {e.strerror or e}.", hint) from e
    return path


def is_offline() -> bool:
    """Whether SGAN_OFFLINE forbids downloads."""
    return os.environ.get("SGAN_OFFLINE", "0") not in ("", "0")


def _download(url: str, sha256: str | None, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    resumed = part.is_file()
    _receive_patiently(url, sha256, part, path)
    if sha256 and (found := cache.sha256_of(part)) != sha256:
        part.unlink()
        if resumed:  # the beginning may have been another file's
            return _download(url, sha256, path)
        raise SganError(
            f"What {url} sends as {path.name} has the SHA-256 {found}, not {sha256}; it was not kept.",
            hint=f"Put the right file at {path}.",
        )
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def _receive_patiently(url: str, sha256: str | None, part: Path, path: Path) -> None:
    """Receive until all of it is there, or until TRIES in a row bring nothing."""
    tries = 0
    while True:
        had = _size(part)
        try:
            return _receive(url, part, path.name)
        except urllib.error.HTTPError as e:
            if e.code == 416 and had:  # nothing comes after what is there; the hash says whether it is right
                return
            reason, final = f"HTTP {e.code} {e.reason}", e.code < 500 and e.code not in (408, 425, 429)
        except _NETWORK as e:
            reason, final = getattr(e, "reason", None) or e or type(e).__name__, False
        tries = 1 if _size(part) > had else tries + 1
        if final or tries >= TRIES:
            told = f"{path.name} cannot be downloaded from {url}: {str(reason).rstrip('.')}."
            raise SganError(told, hint=f"Run again to go on, or put the file at {path}{_hash(sha256)}.")
        time.sleep(PAUSE * 2 ** (tries - 1))


def _receive(url: str, part: Path, name: str) -> None:
    """One connection: append what is missing, or all of it where the server cannot send a part of a file."""
    have = _size(part)
    headers = {"User-Agent": f"stylegan_cli/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    with _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        length = _content_length(response.headers.get("Content-Length"), url)
        total = have + length if length is not None else None
        bar = tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=None)
        with open(part, "ab" if have else "wb") as f, bar:
            while block := response.read(_BLOCK):
                if f.tell() + len(block) > (_MAX_SIZE if total is None else total):
                    f.truncate(0)
                    raise SganError(f"{url} sends more for {name} than it may; that was not kept.")
                f.write(block)
                bar.update(len(block))
    if total and _size(part) < total:
        raise ConnectionError("the connection was cut")


def _content_length(text: str | None, url: str) -> int | None:
    if text and not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise SganError(f"{url} says that it sends {text[:40]!r} bytes, which is no number.")
    return int(text) if text else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, but not out of https: who listens on the way could send anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise SganError(f"{req.full_url} redirects to {newurl}, which is not https; that is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Follows redirections, but reads neither local files nor anything else that is no web server."""
    opener = urllib.request.OpenerDirector()
    for name in ("Proxy", "HTTP", "HTTPS", "HTTPDefaultError", "Unknown"):
        opener.add_handler(getattr(urllib.request, f"{name}Handler")())
    opener.add_handler(_Redirects())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _is_right(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or cache.sha256_of(path) == sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _hash(sha256: str | None) -> str:
    return f" (SHA-256 {sha256})" if sha256 else ""
