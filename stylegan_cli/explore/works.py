"""What jobs do: keeping images, photos, projections, directions, videos."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data.codec import ImageError, decode
from ..data.images import save_image
from ..errors import MisuseError, SganError
from ..files import write_atomic
from ..inversion.annotations import is_recorded, recorded_options
from ..inversion.directions import save_directions
from ..inversion.targets import TargetReader
from ..progress import Progress
from ..sampling.generate import SamplingOptions, generate_images, map_seeds
from ..sampling.latent_files import save_latents
from ..session import ProjectRequest, Session
from ..session.drag import describe_points
from ..session.encode import open_encoder_if_any
from .calls import DragCall, ExportCall, FavoritesCall, FindCall, Item, PhotoCall, ProjectCall, Shown
from .jobs import Job, frame_of
from .views import Origin, Shot, Views, final_folder, final_sampling, reduced

MAX_PHOTO_PIXELS = 2**25


def keep(views: Views, kind: str, call: Shown, origin: Origin) -> dict[str, Any]:
    """Write the latents and the image of a view, for other views and commands."""
    session, sources = views.model(call), origin.sources
    layers = [row.name for row in sources.G.noise_layers]
    noise = sources.noise_of(origin.noise_from[:1])
    if sources.tuned:
        raise SganError("Images of tuned weights cannot be kept.", hint="Use the file of latents itself.")
    shot = views.render(dataclasses.replace(call, size=None), origin)
    path = views.folder.new(kind, ".npz")
    latents, image = path.with_name(f"{path.name}.npz"), path.with_name(f"{path.name}.png")
    with removed_if_failed(latents):
        _save_kept(session, latents, origin, shot, None if noise is None else dict(zip(layers, noise, strict=True)))
        metadata = session.metadata(
            final_sampling(call.sampling), latents=latents.name, commands="\n".join(shot.commands)
        )
        save_image(shot.images[0], image, metadata=metadata)
    return {"item": latents.name, "image": image.name}


def _save_kept(session: Session, path: Path, origin: Origin, shot: Shot, noise: dict[str, Tensor] | None) -> None:
    save_latents(
        path,
        origin.ws[:1],
        seeds=[origin.sources.seeds[origin.noise_from[0]]],
        names=[path.stem],
        noise=noise,
        model=session.fingerprint,
        settings={**session.owner.settings(session.path), "command": shot.commands},
    )


@contextlib.contextmanager
def removed_if_failed(path: Path) -> Iterator[None]:
    """Remove a file, whose name was reserved, if what is written to it fails."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def list_items(views: Views) -> list[str]:
    """The files of latents in the output folder that belong to the model, the newest first."""
    return [name for name in views.folder.list("*.npz", "directions-") if views.is_own(name)]


FAVORITES = "favorites.json"


def load_favorites(views: Views) -> list[Item]:
    """The favorites of the model, or of its run."""
    return _all_favorites(views).get(views.session.info.run or views.session.fingerprint, [])


def save_favorites(views: Views, call: FavoritesCall) -> None:
    found = _all_favorites(views) | {views.session.info.run or views.session.fingerprint: call.items}
    views.folder.path.mkdir(parents=True, exist_ok=True)
    write_atomic(views.folder.path / FAVORITES, json.dumps(found).encode())


def _all_favorites(views: Views) -> dict[str, list[Item]]:
    try:
        found = json.loads((views.folder.path / FAVORITES).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --------------------------------------------------------------------------------------------- photos


def read_photo(views: Views, content: bytes) -> tuple[bytes, bool]:
    """What is kept of an uploaded image, and whether it is the file itself: a PNG of moderate size, which may record
    how it was made. Raises SganError if it cannot be read, or has very many pixels."""
    try:
        image = decode(content, MAX_PHOTO_PIXELS)
    except ImageError as e:
        raise SganError(f"The file cannot be read: {e}.", hint="Choose a PNG, JPEG or WebP image.") from e
    with Image.open(io.BytesIO(content)) as opened:
        is_png = opened.format == "PNG"
    side = max(2048, 4 * max(views.session.G.config.height, views.session.G.config.width))
    if is_png and max(image.size) <= side:
        return content, True
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _png(image), False


def add_photo(views: Views, content: bytes, is_own: bool) -> dict[str, Any]:
    """Write a photo to the output folder, and show it as the model would see it. If it is an image that the model has
    made, also return what makes it again."""
    target = TargetReader(views.session.info).convert([decode(content)], ["the image"])
    path = views.folder.add("photo", ".png", content)
    shown = (target[0] * 127.5 + 127.5).round().byte()
    restored = _restored(views, path, shown) if is_own else None
    return {"photo": path.name, "image": frame_of(shown), "restored": restored}


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _restored(views: Views, path: Path, image: Tensor) -> dict[str, Any] | None:
    """The seed and settings of an image [C, H, W] of this model, from its metadata; None if they make another one."""
    session = views.session
    try:
        recorded = recorded_options(path, session.fingerprint, session.G.label_space)
    except SganError:
        return None
    if recorded is None or session.G.label_space.vectors:  # which the page cannot choose
        return None
    seed, sampling = recorded
    ws = map_seeds(session.G, [seed], sampling)
    (again,) = generate_images(session.G, lambda i, j: ws, [seed], sampling)
    if again.shape != image.shape or not is_recorded(image, again):
        return None
    shown = {"class": sampling.class_index, "noise": sampling.noise_mode, "rotate": sampling.rotate}
    shown |= {name: getattr(sampling, name) for name in ("trunc", "trunc_cutoff", "translate")}
    return {"item": seed, **shown}


def encode(views: Views, call: PhotoCall) -> dict[str, Any]:
    """The latents of a photo, by the model's encoder."""
    path = views.folder.find(call.photo, ".png")
    result = views.session.encode(images=[str(path)])
    folder = views.folder.new_folder(path.stem)
    files = result.save(folder)
    command = views.commands.line(f"encode {path}", outdir=folder)
    return _found(views, files, result.images[0], result.psnr[0], command)


def has_encoder(views: Views) -> bool:
    try:
        return open_encoder_if_any(views.session, None, "./runs") is not None
    except SganError:
        return False


def project(views: Views, call: ProjectCall, job: Job) -> dict[str, Any]:
    """Search the latents of a photo, and show the best so far."""
    session, path = views.session, views.folder.find(call.photo, ".png")
    loss = "lpips" if session.D is None else "discriminator"
    space = call.space if session.G.config.has_mapping else None  # which is the best for such a model
    request = ProjectRequest(images=[str(path)], steps=call.steps, space=space, loss=loss, init=call.init)
    image: dict[str, Any] = {}

    def watch(ws: Any) -> None:
        image.clear()
        if job.wants_image():
            (shown,) = generate_images(session.G, lambda i, j: ws[i:j], [0], SamplingOptions())
            image["image"] = frame_of(shown)

    def progress(what: str, done: int, total: int) -> None:
        job.report(what, done, total, image, can_stop=done > 0 and what.startswith("steps"))

    result = session.project(request, progress, watch)
    folder = views.folder.new_folder(path.stem)
    files = result.save(folder)
    options = {"steps": call.steps, "space": space, "loss": loss, "init": call.init, "outdir": folder}
    command = views.commands.line(f"project {path}", **options)
    return _found(views, files, result.images[0], result.psnr[0], command)


def _found(views: Views, files: list[Path], image: Any, psnr: float, command: str) -> dict[str, Any]:
    item = next(path for path in files if path.suffix == ".npz").relative_to(views.folder.path).as_posix()
    return {"item": item, "image": frame_of(image), "psnr": round(psnr, 2), "command": command}


# ----------------------------------------------------------------------------------------- directions


def list_directions(views: Views) -> list[dict[str, Any]]:
    """The files of directions in the output folder that belong to the model."""
    found = []
    for name in views.folder.list("directions-*.npz"):
        try:
            found.append(_described(views, name))
        except SganError:  # of another model
            continue
    return found


def _described(views: Views, name: str) -> dict[str, Any]:
    directions = views.directions(views.session, name)
    return {
        "file": name,
        "method": directions.method,
        "strength": directions.strength,
        "layers": directions.layers,
        "names": directions.names,
    }


def find(views: Views, call: FindCall, job: Job) -> dict[str, Any]:
    """Find directions, and write them to the output folder."""
    labeled = call.method == "labels"
    options: dict[str, Any] = {"from_labels": True} if labeled else {"method": call.method}
    if call.count and call.method in ("pca", "sefa"):
        options["count"] = call.count
    job.report("directions", 0, 1)
    directions = views.session.find_directions(progress=_following(job), **options)
    path = views.folder.new(f"directions-{directions.method}", ".npz")
    path = path.with_name(f"{path.name}.npz")
    with removed_if_failed(path):
        save_directions(path, directions)
    command = views.commands.line("edit find", **options, out=path)
    return {"file": _described(views, path.name), "command": command}


# ---------------------------------------------------------------------------------------------- videos


def export(views: Views, call: ExportCall, job: Job) -> dict[str, Any]:
    """Write the video of a walk to the output folder."""
    session, keys = views.model(call), _final_keys(views, call)
    path = views.folder.new("walk", f".{call.format}")
    path = path.with_name(f"{path.name}.{call.format}")
    options = {"kind": call.kind, "frames": call.frames, "fps": call.fps, "loop": call.loop}
    sampling = {"trunc": call.trunc, "trunc_cutoff": call.trunc_cutoff, "class_index": call.class_index}
    if any(isinstance(key, str) for key in keys):
        sampling = {"class_index": call.class_index if any(isinstance(key, int) for key in keys) else None}
    with removed_if_failed(path):
        session.interpolate(seeds=keys, progress=_following(job), **options, **sampling).save(path)
    return {"file": path.name, "command": "\n".join(views.walk_commands(call, call.fps, path))}


def _final_keys(views: Views, call: ExportCall) -> list[int | str]:
    """Key images for one request: `Views.latents` truncates seeds only, a request files as well."""
    keys: list[int | str] = []
    for key in call.keys:
        if isinstance(key, str):
            keys.append(str(views.folder.find(key, ".npz")))
        elif call.trunc == 1 or all(isinstance(k, int) for k in call.keys):
            keys.append(key)
        else:
            folder = views.folder.path / final_folder(key, call)
            options = SamplingOptions(call.trunc, call.trunc_cutoff, call.class_index)
            request = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
            views.model(call).generate(seeds=[key], **request).save(folder, latents=True)
            keys.append(str(folder / "w.npz"))
    return keys


def _following(job: Job) -> Progress:
    return lambda what, done, total: job.report(what, done, total)


# --------------------------------------------------------------------------------------------- dragging


def drag(views: Views, call: DragCall, job: Job) -> dict[str, Any]:
    """Drag points of an image, and show each step."""
    session, sampling = views.model(call), views.sampling_of([call.item], call)
    start = call.item if isinstance(call.item, int) else str(views.folder.find(call.item, ".npz"))
    points = [(x, y, to_x, to_y) for x, y, to_x, to_y in call.points]
    mask = None if call.mask is None else _mask(call.mask, (session.G.config.height, session.G.config.width))
    options = {field.name: getattr(sampling, field.name) for field in dataclasses.fields(sampling)}
    task = session.prepare_drag(start=start, points=points, mask=mask, steps=call.steps, **options)
    factor = views.factor(session, call.size)
    with contextlib.suppress(KeyboardInterrupt):
        for step in task.steps():
            image = {"image": frame_of(reduced(task.image(step.ws), factor))} if job.wants_image() else {}
            state = {"points": step.points, "distance": max(step.distance)}
            job.report("steps", step.index, call.steps, state | image)
    result = task.result()
    path = views.folder.new("drag", ".npz")
    with removed_if_failed(path.with_name(f"{path.name}.npz")):
        files = result.save(path.parent, path.name)
    source = {"seed": start} if isinstance(start, int) else {"latents": start}
    options = source | {"points": describe_points(points), "steps": call.steps}
    if mask is not None:
        options["mask"] = path.with_name(f"{path.name}-mask.png")
        save_image(mask[None].to(torch.uint8) * 255, options["mask"])
    command = views.command(call, "edit drag", sampling, **options, outdir=path.parent)
    found = {"points": result.points, "distance": result.distance, "command": command}
    return {"item": files[0].name, "image": frame_of(result.image), **found}


def _mask(
    text: str,  # base64 of a byte for each pixel
    size: tuple[int, int],  # height and width
) -> Tensor:  # bool [H, W]
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        content = b""
    if len(content) != size[0] * size[1]:
        raise MisuseError(f"The mask must have {size[0] * size[1]} bytes, one for each pixel.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(size) > 0
