"""Open files, or mutations of files, under an audit hook: what happened to each, as JSON.

    python _hostile.py corpus FOLDER
    python _hostile.py mutations COUNT SEED FILE...

Run in a process of its own, since an audit hook cannot be taken off. What may be opened is the file itself.
"""

import codecs
import io
import json
import random
import resource
import sys
import time
from pathlib import Path

import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop import opening
from stylegan_cli.interop.names import names_in
from stylegan_cli.pickled import Part

FORBIDDEN = ("import", "exec", "compile", "subprocess", "os.", "socket", "ctypes", "shutil", "code.", "pty.", "urllib")
state = {"watching": False, "path": None, "events": []}


def hook(event, arguments):
    if not state["watching"]:
        return
    if event == "open":
        if str(arguments[0]) != str(state["path"]):
            state["events"].append(f"open {arguments[0]}")
    elif event.startswith(FORBIDDEN) and event not in ("os.scandir", "os.listdir"):
        state["events"].append(f"{event} {arguments}"[:200])


def watched(path, work):
    """What came of it: the sentence, the forbidden events, seconds."""
    state.update(path=path, events=[], watching=True)
    start, told, kind = time.process_time(), None, "opened"
    try:
        work()
    except SganError as e:
        told, kind = str(e), "refused"
    except BaseException as e:
        told, kind = f"{type(e).__name__}: {e}", "crashed"
    state["watching"] = False
    seconds = time.process_time() - start
    return {"kind": kind, "told": told, "events": state["events"], "seconds": seconds, "peak": peak()}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def corpus(folder):
    warm(sorted(folder.glob("good*")))
    base = peak()
    for path in sorted(folder.iterdir()):
        found = watched(path, lambda path=path: opening.open_model(path))
        found["peak"] -= base
        named = watched(path, lambda path=path: names_in(path))
        found["events"] += named["events"]
        if named["kind"] == "crashed":
            found |= {"kind": "crashed", "told": named["told"]}
        print(json.dumps({"name": path.name, "size": path.stat().st_size, **found}), flush=True)


def mutations(count, seed, paths):
    warm(paths)
    draw, wholes = random.Random(seed), [path.read_bytes() for path in paths]
    kinds = {"opened": 0, "refused": 0, "crashed": 0}
    events, slowest, first = [], 0.0, None
    for _ in range(count):
        data = mutated(draw, draw.choice(wholes))
        found = watched(None, lambda data=data: read(data))
        kinds[found["kind"]] += 1
        events += found["events"]
        slowest = max(slowest, found["seconds"])
        first = first or (found["told"] if found["kind"] == "crashed" else None)
    print(json.dumps({**kinds, "events": events[:10], "slowest": slowest, "first": first, "peak": peak()}))


def read(data):
    path = Path("mutation")
    foreign = opening.read_foreign(Part(io.BytesIO(data)), path)
    opening.load_tensors(foreign, path, len(data))


def mutated(draw, data):
    """Bytes changed, cut out, doubled, moved, or the end cut off."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at, length = draw.randrange(len(data)), draw.choice((1, 1, 2, 4, 8, 64, 500))
        how = draw.randrange(6)
        if how == 0:
            data[at] = draw.randrange(256)
        elif how == 1:
            data[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            del data[at : at + length]
        elif how == 3:
            data[at:at] = data[at : at + length]
        elif how == 4:
            other = draw.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        elif draw.random() < 0.2:
            del data[at:]
        data = data or bytearray(b"\x80")
    return bytes(data)


def warm(paths):
    """Let everything be imported that is imported late."""
    for codec in ("raw_unicode_escape", "unicode_escape", "ascii", "latin-1", "utf-8", "cp437"):
        codecs.lookup(codec)
    for path in paths:
        opening.open_model(path)
        names_in(path)
        read(path.read_bytes())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.addaudithook(hook)
    if sys.argv[1] == "corpus":
        corpus(Path(sys.argv[2]))
    else:
        mutations(int(sys.argv[2]), int(sys.argv[3]), [Path(p) for p in sys.argv[4:]])
