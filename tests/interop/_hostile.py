"""Open files, or mutations of files, under an audit hook, and print the results as JSON.

    python _hostile.py corpus FOLDER
    python _hostile.py mutations COUNT SEED FILE...

It runs in its own process, because an audit hook cannot be removed. Only the file itself may be opened.
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
from stylegan_cli.interop.names import find_names
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


def watch(path, action):
    """Run an action and return its result: opened, refused or crashed; the message; forbidden events; seconds."""
    state.update(path=path, events=[], watching=True)
    start, message, result = time.process_time(), None, "opened"
    try:
        action()
    except SganError as e:
        message, result = str(e), "refused"
    except BaseException as e:
        message, result = f"{type(e).__name__}: {e}", "crashed"
    state["watching"] = False
    seconds = time.process_time() - start
    return {"result": result, "message": message, "events": state["events"], "seconds": seconds, "peak": peak()}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def corpus(folder):
    warm_up(sorted(folder.glob("good*")))
    base = peak()
    for path in sorted(folder.iterdir()):
        report = watch(path, lambda path=path: opening.open_model(path))
        report["peak"] -= base
        names_report = watch(path, lambda path=path: find_names(path))
        report["events"] += names_report["events"]
        if names_report["result"] == "crashed":
            report |= {"result": "crashed", "message": names_report["message"]}
        print(json.dumps({"name": path.name, "size": path.stat().st_size, **report}), flush=True)


def mutations(count, seed, paths):
    warm_up(paths)
    random_source, originals = random.Random(seed), [path.read_bytes() for path in paths]
    counts = {"opened": 0, "refused": 0, "crashed": 0}
    events, slowest, first_crash = [], 0.0, None
    for _ in range(count):
        data = mutate(random_source, random_source.choice(originals))
        report = watch(None, lambda data=data: read(data))
        counts[report["result"]] += 1
        events += report["events"]
        slowest = max(slowest, report["seconds"])
        first_crash = first_crash or (report["message"] if report["result"] == "crashed" else None)
    print(json.dumps({**counts, "events": events[:10], "slowest": slowest, "first": first_crash, "peak": peak()}))


def read(data):
    path = Path("mutation")
    checkpoint = opening.read_checkpoint(Part(io.BytesIO(data)), path)
    opening.load_tensors(checkpoint, path, len(data))


def mutate(random_source, data):
    """Change, delete, duplicate or move bytes, or truncate the data."""
    data = bytearray(data)
    for _ in range(random_source.choice((1, 1, 1, 2, 4, 16))):
        at, length = random_source.randrange(len(data)), random_source.choice((1, 1, 2, 4, 8, 64, 500))
        mutation = random_source.randrange(6)
        if mutation == 0:
            data[at] = random_source.randrange(256)
        elif mutation == 1:
            data[at] ^= 1 << random_source.randrange(8)
        elif mutation == 2:
            del data[at : at + length]
        elif mutation == 3:
            data[at:at] = data[at : at + length]
        elif mutation == 4:
            other = random_source.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        elif random_source.random() < 0.2:
            del data[at:]
        data = data or bytearray(b"\x80")
    return bytes(data)


def warm_up(paths):
    """Trigger all lazy imports."""
    for codec in ("raw_unicode_escape", "unicode_escape", "ascii", "latin-1", "utf-8", "cp437"):
        codecs.lookup(codec)
    for path in paths:
        opening.open_model(path)
        find_names(path)
        read(path.read_bytes())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.addaudithook(hook)
    if sys.argv[1] == "corpus":
        corpus(Path(sys.argv[2]))
    else:
        mutations(int(sys.argv[2]), int(sys.argv[3]), [Path(p) for p in sys.argv[4:]])
