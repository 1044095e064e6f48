"""What the page has to know about the model."""

from __future__ import annotations

from typing import Any

from ..errors import SganError
from ..models.generator import Generator
from ..runs.folders import snapshots
from ..runs.lock import is_running
from ..sampling.mixing import SPANS, style_indices
from ..snapshot import read_info
from ..version import __version__
from . import calls
from .guard import MAX_UPLOAD
from .views import MAX_PIXELS, Views
from .works import has_encoder


def describe_model(views: Views) -> dict[str, Any]:
    """The model, and what can be done with it."""
    session = views.session
    G, space = session.G, session.G.label_space
    config = G.config
    classes = None
    if space.c_dim and not space.vectors:
        classes = [{"index": i, "name": space.name(i)} for i in range(space.c_dim)]
    rows = {row.w_index: row for row in reversed(G.layers)}  # the first row of each w
    groups = _groups(G)
    limit = max(1, min(calls.MAX_IMAGES, MAX_PIXELS // (config.height * config.width)))
    return {
        "name": session.path.name,
        "title": f"{config.title}, {config.width} x {config.height}",
        "width": config.width,
        "height": config.height,
        "channels": config.channels,
        "num_ws": G.num_ws,
        "styles": G.num_ws > 1,
        "layers": [
            {
                "index": i,
                "name": rows[i].path,
                "size": f"{rows[i].width} x {rows[i].height}",
                "group": next((name for name, indices in groups.items() if i in indices), None),
            }
            for i in range(G.num_ws)
        ],
        "groups": groups,
        "classes": classes,
        "codes": bool(session.info.codes.values),
        "labels": session.info.is_labeled or session.info.data is not None,
        "transform": config.takes_transform,
        "noise": bool(G.noise_layers),
        "discriminator": session.D is not None,
        "encoder": has_encoder(views),
        "run": views.run is not None,
        "outdir": str(views.folder.path),
        "command": views.commands.line("explore"),
        "version": __version__,
        "limits": {
            "upload_bytes": MAX_UPLOAD,
            "images": limit,
            "steps": calls.MAX_STEPS,
            "frames": calls.MAX_FRAMES,
            "keys": calls.MAX_KEYS,
            "points": calls.MAX_POINTS,
        },
    }


def list_snapshots(views: Views) -> dict[str, Any]:
    """The snapshots of the run, and whether it is training."""
    if views.run is None:
        return {"snapshots": [], "training": False}
    found = [{"name": path.name, "kimg": read_info(path).kimg} for path in snapshots(views.run)]
    return {"snapshots": found, "training": is_running(views.run)}


def _groups(G: Generator) -> dict[str, list[int]]:
    try:
        return {name: style_indices(G.layers, name) for name in SPANS}
    except SganError:  # too few styles
        return {}
