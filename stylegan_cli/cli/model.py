"""sgan model"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SganError, plural, printable
from .call import output_file
from .options import out_options, output_options
from .params import STYLES, FiniteRange
from .public import get_command, list_command

if TYPE_CHECKING:
    from ..data.dataset import DataSpec
    from ..snapshot import SnapshotInfo


_COLORS = {1: "gray", 3: "RGB", 4: "RGBA"}  # by number of channels
_MAX_CLASSES = 100  # that are listed by name


@click.group(short_help="List public models and download them, show and blend models.")
def command() -> None:
    """List public models and download them by name, show what a model file contains, and blend two models.

    \b
    Examples:
      sgan model list faces
      sgan model get ada-ffhq
      sgan model info runs/00000-faces-auto
      sgan model blend faces.safetensors runs/00001-cartoons-auto --layers coarse
    """


command.add_command(list_command)
command.add_command(get_command)


@command.command("info", short_help="Show architecture, parameters, training data and metrics.")
@click.argument("file")
@click.option("--layers", is_flag=True, help="Also list every layer of the generator.")
@output_options
def info_command(file: str, layers: bool, as_json: bool, quiet: bool) -> None:
    """Show what a model file contains: architecture, parameters, training data and metrics.

    FILE is a snapshot, a run folder, an encoder, a translator of pix2pix, a critic, a segmenter, a checkpoint of
    another program (path or URL), or the name of a public model. For a pickle, all classes and functions that it names
    are listed as inert (known and read as plain data) or UNKNOWN; none of them is executed.

    \b
    Examples:
      sgan model info runs/00000-faces-auto
      sgan model info ffhq.pkl --layers
    """
    from ..config import to_json
    from ..interop.conversion import conversion_notes, find_model, model_info, written_by
    from ..interop.names import find_names
    from ..models.registry import build_discriminator, build_generator
    from ..models.summary import parameter_count

    path, _ = find_model(file)
    if show := _other_kind(path):
        return show(path, as_json)
    names = find_names(path)
    if not as_json and names and names.known:
        _print_names(names.known, names.complete)
    info = model_info(path)
    import torch

    with torch.device("meta"):
        G = build_generator(info.generator)
        D = build_discriminator(info.discriminator) if info.discriminator else None
    parameters = {"G": parameter_count(G), "D": None if D is None else parameter_count(D)}
    if as_json:
        facts = {"file": str(path), "written_by": written_by(path), "parameters": parameters, "info": to_json(info)}
        return click.echo(json.dumps(facts | {"names": names and dataclasses.asdict(names)}))
    rows = {"File": path, "Written by": written_by(path), **_architecture(info)}
    rows |= _labels(info)
    rows |= {"Parameters": ", ".join(f"{name} {count:,}" for name, count in parameters.items() if count)}
    if info.kimg:
        rows["Trained"] = f"{info.kimg:g} kimg"
    if info.data:
        rows["Dataset"] = _dataset(info.data)
    rows |= {"Origin": info.origin or "unknown", **{name: f"{value:.6g}" for name, value in info.metrics.items()}}
    rows |= {f"Note {i}": note for i, note in enumerate(conversion_notes(path), 1)}
    _print_rows(rows)
    if layers:
        width = max(len(row.name) for row in G.layers)
        for row in G.layers:
            size = f"{row.height}x{row.width}"
            click.echo(f"{row.name:{width}}  w {row.w_index:<2}  {size:>11}  {row.channels:>4} channels")


@command.command("blend", short_help="Blend two models of one ancestor: layers or weights of both.")
@click.argument("a")
@click.argument("b")
@click.option(
    "--layers",
    type=STYLES,
    help="Layers to take from B: coarse (shape), middle, fine (color), or indices of w such as 0-4. The others, and "
    "the mapping network, are those of A.",
)
@click.option(
    "--level",
    type=click.IntRange(4),
    help="Instead of --layers: take all layers up to this level from B, such as 16 for those of 16x16.",
)
@click.option(
    "--weight",
    type=FiniteRange(0, 1),
    help="Weight of B in these layers, 0 to 1. Default: 1 with --layers or --level; else 0.5 of all weights.",
)
@click.option(
    "--smooth",
    type=FiniteRange(0),
    default=0.0,
    help="Width of the transition from B to A, in layers or levels; 0: none.",
)
@click.option(
    "--any-model",
    is_flag=True,
    help="Also blend models whose files name no ancestor in common, or other classes; those of A are kept.",
)
@out_options("blend.safetensors", "./out")
@output_options
def blend_command(
    a: str, b: str, out: str | None, outdir: str | None, as_json: bool, quiet: bool, **request: Any
) -> None:
    """Blend two models of one ancestor, and write one.

    A and B are snapshots, run folders or checkpoints of other programs: of one run, or one fine-tuned from the other,
    or both fine-tuned from one model (`sgan train --resume`). Their layers then fit together, so that coarse layers of
    one and fine layers of the other make images with the shapes of one and the colors of the other; or the weights of
    both are interpolated. The result is a model for all commands, with the discriminator of A.

    \b
    Examples:
      sgan model blend runs/00000-faces-auto runs/00001-cartoons-auto --layers coarse
      sgan model blend faces.safetensors cartoons.safetensors --level 16 --smooth 1
      sgan model blend faces.safetensors cartoons.safetensors --weight 0.3
    """
    from ..interop.conversion import find_model
    from ..interop.opening import open_model
    from ..session import BlendRequest, blend_models
    from ..snapshot import save_snapshot

    blend, paths = BlendRequest(**request), [find_model(model)[0] for model in (a, b)]
    path = Path(output_file(out, outdir, "blend.safetensors"))
    if any(path.exists() and path.samefile(source) for source in paths):
        raise SganError(f"{path} is one of the models to blend.", hint="Use another --out.")
    model = blend_models(open_model(paths[0]), open_model(paths[1]), blend)
    save_snapshot(path, model.G, model.D, model.info)
    if not quiet:
        click.echo(f"Blended: {model.info.origin}", err=True)
    click.echo(json.dumps({"file": str(path), "origin": model.info.origin}) if as_json else path)


def _other_kind(path: Path) -> Callable[[Path, bool], None] | None:
    """The function that shows a file that is not a model; None for models."""
    from ..sampling.critics import CRITIC_FILE
    from ..sampling.encoders import ENCODER_FILE
    from ..sampling.segmenter_files import SEGMENTER_FILE
    from ..sampling.translators import TRANSLATOR_FILE

    kinds = ((ENCODER_FILE, _show_encoder), (CRITIC_FILE, _show_critic), (SEGMENTER_FILE, _show_segmenter))
    kinds += ((TRANSLATOR_FILE, _show_translator),)
    return next((show for kind, show in kinds if kind.is_kind_of(path)), None)


def _show_encoder(path: Path, as_json: bool) -> None:
    """Print what the header of an encoder says."""
    import torch

    from ..config import to_json
    from ..models.encoders.pyramid import PyramidEncoder
    from ..models.summary import parameter_count
    from ..sampling.encoders import ENCODER_FILE

    info = ENCODER_FILE.read_info(path)
    config = info.encoder
    with torch.device("meta"):
        count = parameter_count(PyramidEncoder(config))
    if as_json:
        return click.echo(json.dumps({"file": str(path), "parameters": {"E": count}, "info": to_json(info)}))
    rows = {
        "File": path,
        "Written by": f"encoder of stylegan_cli {info.version}",
        "Encoder": f"{config.height}x{config.width} (height x width) {_COLORS[config.channels]}, "
        f"{len(config.levels)} latents of {config.w_dim}, space {config.space}, {plural(config.passes, 'pass')}",
        "Task": info.task + (", with skips to a fine-tuned generator" if info.skips else ""),
        "Parameters": f"E {count:,}",
        "Model": f"fingerprint {info.model}, {info.owner.get('model', 'of an unknown file')}",
        "Trained": f"{info.kimg:g} kimg",
    }
    if info.data:
        rows["Dataset"] = _dataset(info.data)
    _print_rows(rows | _held_out(info.held_out))


def _held_out(figures: dict[str, float]) -> dict[str, str]:
    return {f"Held out: {k}": f"{value:.6g} dB" if k == "psnr" else f"{value:.6g}" for k, value in figures.items()}


def _show_translator(path: Path, as_json: bool) -> None:
    """Print what the header of a translator says."""
    import torch

    from ..config import to_json
    from ..models.summary import parameter_count
    from ..models.translators.pix2pix import UNet
    from ..sampling.translators import TRANSLATOR_FILE

    info = TRANSLATOR_FILE.read_info(path)
    config = info.generator
    with torch.device("meta"):
        count = parameter_count(UNet(config))
    if as_json:
        return click.echo(json.dumps({"file": str(path), "parameters": {"G": count}, "info": to_json(info)}))
    rows = {
        "File": path,
        "Written by": f"translator of stylegan_cli {info.version}",
        "Translator": f"pix2pix, {config.height}x{config.width} (height x width), {_COLORS[config.inputs]} to "
        f"{_COLORS[config.channels]}",
        "Parameters": f"G {count:,}",
        "Trained": f"{info.kimg:g} kimg",
    }
    for name, spec in (("Dataset", info.data), ("Source", info.source)):
        rows |= {name: _dataset(spec)} if spec else {}
    _print_rows(rows | _held_out(info.held_out))


def _show_critic(path: Path, as_json: bool) -> None:
    """Print what the header of a critic says."""
    from ..config import to_json
    from ..sampling.critics import CRITIC_FILE

    info = CRITIC_FILE.read_info(path)
    if as_json:
        return click.echo(json.dumps({"file": str(path), "skill": info.skill, "info": to_json(info)}))
    rows = {
        "File": path,
        "Written by": f"critic of stylegan_cli {info.version}",
        "Critic": f"of {info.name}",
        "Images": f"{info.height}x{info.width} (height x width) {_COLORS[info.channels]}; others are resized",
        "Held out: accuracy": f"{info.accuracy:.3f} on {plural(info.held_out, 'image')}; 0.5 by chance",
        "Held out: skill": f"{info.skill:.3f}",
    }
    if info.junk:
        rejected = "" if info.junk_rejected is None else f", of which {info.junk_rejected:.0%} are rejected"
        rows["Junk"] = f"early images of {info.junk}{rejected}"
    if info.data:
        rows["Dataset"] = _dataset(info.data)
    _print_rows(rows)


def _show_segmenter(path: Path, as_json: bool) -> None:
    """Print what the header of a segmenter says."""
    from ..config import to_json
    from ..sampling.segmenter_files import SEGMENTER_FILE

    info = SEGMENTER_FILE.read_info(path)
    if as_json:
        return click.echo(json.dumps({"file": str(path), "info": to_json(info)}))
    rows = {
        "File": path,
        "Written by": f"segmenter of stylegan_cli {info.version}",
        "Classes": ", ".join(info.classes),
        "Method": f"{info.method}, {plural(info.examples, 'annotated image')}",
        "Model": f"fingerprint {info.model}, {info.owner.get('model', 'of an unknown file')}",
    }
    rows |= {f"Held out: {name}": "-" if iou is None else f"IoU {iou:.3f}" for name, iou in info.iou.items()}
    _print_rows(rows)


def _print_rows(rows: dict[str, Any]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(f"{name:{width}}  {printable(str(value))}")


def _dataset(data: DataSpec) -> str:
    return f"{data.path} ({data.num} of {data.height}x{data.width}, height x width)"


def _architecture(info: SnapshotInfo) -> dict[str, str]:
    from ..models.config import judges_pairs

    D = info.discriminator
    what = "" if D is None or not judges_pairs(info.generator, D) else ", judges pairs of an image and its z"
    rows = {
        "Generator": info.generator.describe(_unit(info)),
        "Discriminator": D.describe() + what if D else "none",
    }
    return rows | ({"Input": "can be translated and rotated"} if info.generator.takes_transform else {})


def _unit(info: SnapshotInfo) -> str:
    """What the number of classes counts."""
    return "code" if info.codes.values else info.data.label_unit if info.data else "class"


def _labels(info: SnapshotInfo) -> dict[str, str]:
    """Rows of the classes or labels, and of the codes, which nobody named."""
    values, numbers = info.codes.values, info.codes.numbers
    rows = {"Labels" if info.data and info.data.vectors else "Classes": _label_names(info)} if info.is_labeled else {}
    codes = [f"{values} values (--class 0 to {values - 1})"] if values else []
    codes += [f"the first {plural(numbers, 'number')} of z"] if numbers else []
    return rows | ({"Codes": ", ".join(codes)} if codes else {})


def _label_names(info: SnapshotInfo) -> str:
    """The classes with their indices, or the names of the numbers of a label."""
    names = info.data.classes if info.data and info.data.c_dim == info.generator.c_dim else ()
    is_vector = bool(info.data and info.data.vectors)
    shown = [name if is_vector or name == str(i) else f"{i} {name}" for i, name in enumerate(names[:_MAX_CLASSES])]
    more = f" and {len(names) - _MAX_CLASSES} more (--json lists all)" if len(names) > _MAX_CLASSES else ""
    return ", ".join(shown) + more if names else f"{info.generator.c_dim}, of unknown names"


def _print_names(known: dict[str, bool], complete: bool) -> None:
    click.echo("Names in the pickle:")
    for name, inert in sorted(known.items()):
        click.echo(f"  {'inert  ' if inert else 'UNKNOWN'}  {printable(name)}")
    if not complete:
        click.echo("  The rest of the file cannot be read; it may contain more names.")
