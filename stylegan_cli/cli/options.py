"""Options that several commands share: the same name, metavar and help everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import typing

import click

from .call import Call
from .params import DEVICE, LATENTS, Number, Vector


class OrderedGroup(click.Group):
    """A group that lists its commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class ImagesOrCommand(OrderedGroup):
    """A group with arguments and options of its own, which apply unless the first word is one of its commands."""

    allow_interspersed_args = True

    def __init__(self, *options: typing.Any, **named: typing.Any) -> None:
        super().__init__(*options, **{"no_args_is_help": False, **named})  # the command asks for what is missing

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: typing.Any,
    ) -> click.Context:
        if args and (command := self.commands.get(args[0])):
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> typing.Any:
        return click.Command.invoke(self, ctx)


def combine_options(*options: typing.Callable) -> typing.Callable:
    """Combine several options into one decorator; the help shows them in the order given."""

    def decorate(function: typing.Callable) -> typing.Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# Passes `runs` (str).
runs_option = click.option("--runs", metavar="FOLDER", default="./runs", help="Folder that contains the run folders.")

# Passes `model` (str or None) and `runs` (str), for `interop.conversion.find_model`.
model_option = combine_options(
    click.option(
        "--model",
        "--network",
        "model",
        metavar="PATH",
        help="Model: a snapshot, a run folder (its newest snapshot), a checkpoint of another program (path or URL), or "
        "a public model by its name (`sgan model list`). "
        "Default: the newest snapshot in --runs, else the bundled model.",
    ),
    runs_option,
)


@contextlib.contextmanager
def _environment(name: str, value: str) -> typing.Iterator[None]:
    """Set a variable for this process and its children, which is read without importing PyTorch."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _hide_bars(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Hide also the bars of downloads and builds, which may begin anywhere."""
    if value:
        ctx.with_resource(_environment("TQDM_DISABLE", "1"))
    return value


# Passes `quiet`.
def quiet_option(
    effect: str = "Print only the result.",  # the help
) -> typing.Callable:
    return click.option("-q", "--quiet", is_flag=True, callback=_hide_bars, help=effect)


quiet_run_option = quiet_option("Hide the progress bar and the log.")

# Passes `as_json` and `quiet`: results go to stdout, everything else to stderr.
output_options = combine_options(
    click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON."),
    quiet_option(),
)


def _allow_fallback(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Let PyTorch run operations that it lacks on Apple's GPUs on the CPU, with a warning for each. It reads the
    variable when it is imported."""
    if value == "mps":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    return value


# Passes `device`, for `resolve_device`.
device_option = click.option(
    "--device",
    type=DEVICE,
    default="auto",
    callback=_allow_fallback,
    help="Device: auto (CUDA if available), cpu, cuda, cuda:N, or mps (Apple GPU; untested).",
)


# Passes nothing: it applies to everything that the command calls. Also validates the environment variable.
kernels_option = click.option(
    "--kernels",
    type=click.Choice(["auto", "cuda", "fused", "composite", "reference"]),
    default="auto",
    envvar="SGAN_KERNELS",
    show_envvar=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.with_resource(_environment("SGAN_KERNELS", value)),
    help="Implementation of the operations: auto (CUDA kernels if available), cuda (CUDA kernels, else an error), "
    "fused (as cuda, with one kernel per convolution layer), composite (optimized PyTorch) or reference (plain "
    "PyTorch).",
)


# Passes `any_model`.
_any_model_option = click.option(
    "--any-model",
    is_flag=True,
    help="Also accept files of latents, directions, tuned weights and encoders that belong to another model, such as "
    "one that this model was fine-tuned from. Other snapshots of the same run need no option.",
)


def session_options(command: typing.Callable) -> typing.Callable:
    """Pass `call`, a `Call`, in place of everything that model_option, device_option and output_options pass."""

    @functools.wraps(command)
    def run(**options: typing.Any) -> None:
        shared = {field.name: options.pop(field.name) for field in dataclasses.fields(Call)}
        command(call=Call(**shared), **options)

    return combine_options(model_option, _any_model_option, device_option, kernels_option, output_options)(run)


# Passes `seeds`, a list of seeds and names of files of latents.
def latents_option(
    default: str | None,
    note: str = "",  # further sentences of the help
) -> typing.Callable:
    return click.option(
        "--seeds",
        type=LATENTS,
        default=default,
        help="Images, as seeds (random starting points) such as 0,5,10-20, or as files of latents (.npz of "
        f"`sgan project`, or .npz, .npy, .pt of other programs).{note}",
    )


# Passes `class_index` (str or None).
def class_choice(
    default: str,  # what happens without it
) -> typing.Callable:
    return click.option(
        "--class",
        "class_index",
        metavar="NAME",
        help="Class of the images, as name or index, for models trained on labels (see `sgan model info`). Models of "
        f"several labels per image take several names or numbers: NAME,NAME,... Default: {default}.",
    )


class_option = class_choice("sampled from each seed")


# Passes `trunc`, or another name.
def trunc_option(name: str = "trunc") -> typing.Callable:
    return click.option(
        "--trunc",
        name,
        type=Number(),
        default=1.0,
        help="Truncation psi, which pulls latents (the model's inputs) toward their mean: 1 is none, 0 gives the mean "
        "image; values in between trade variety for quality.",
    )


# Passes `latent_space` (str or None).
latent_space_option = click.option(
    "--latent-space",
    type=click.Choice(["z", "w", "w+"]),
    help="Latent space of files of latents: z, w (one latent for all layers) or w+ (one per layer). Default: from the "
    "names and shapes in the file, see `File formats` in the documentation.",
)

# Passes `trunc`, `trunc_cutoff`, `class_index` and `latent_space`.
truncation_options = combine_options(
    trunc_option(),
    click.option(
        "--trunc-cutoff", type=click.IntRange(0), help="Number of styles to truncate, from the first. Default: all."
    ),
    class_option,
    latent_space_option,
)

# Passes `batch` (int or None).
batch_option = click.option(
    "--batch", type=click.IntRange(1), help="Number of images per batch. Default: chosen by image size."
)

# Passes `batch` and `precision`.
speed_options = combine_options(
    batch_option,
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf32", "bf16", "fp16"]),
        default="auto",
        help="Precision of the highest resolutions: fp32, bfloat16 products (bf32, on a CPU), bf16, fp16 or auto (bf32 "
        "on a CPU that is faster with it, else fp32).",
    ),
)

# Passes `encoder` (str or None).
encoder_option = click.option(
    "--encoder",
    metavar="PATH",
    help="Encoder: a file, or a run folder of `sgan encoder fit`, `sgan translate fit`, or `sgan train` with "
    "--recipe bigan, --recipe vaegan or --mode-regularize. Default: the newest one in --runs for the model and the "
    "task; else, to encode images, the one beside the model's file, which its run has trained, or that of the bundled "
    "model.",
)

# Passes `outdir`.
outdir_option = click.option("--outdir", default="./out", metavar="FOLDER", help="Folder to write to.")


# Passes `out` and `outdir` (str or None), for `output_file`.
def out_options(
    file: str,  # written without --out
    folder: str,  # written to without --outdir
) -> typing.Callable:
    return combine_options(
        click.option(
            "--out", metavar="FILE", help=f"Output file. A bare file name is created in --outdir. Default: {file}."
        ),
        click.option("--outdir", metavar="FOLDER", help=f"Folder to write to. Default: {folder}."),
    )


# Passes `outdir` and `format`.
file_options = combine_options(
    outdir_option,
    click.option("--format", type=click.Choice(["png", "jpg", "webp"]), default="png", help="Output image format."),
)


# Passes `translate` (tuple or None) and `rotate` (float or None).
def view_options(
    when: str,  # 'in all images'
) -> typing.Callable:
    return combine_options(
        click.option(
            "--translate",
            type=Vector(),
            metavar="X,Y",
            help=f"Motion to the right and down {when}, in image widths and heights, such as 0.25,0. Only for "
            "models whose input can be moved, see `sgan model info`. Default: none.",
        ),
        click.option(
            "--rotate",
            type=Number(),
            metavar="DEGREES",
            help=f"Counterclockwise rotation {when}, for the same models. Default: none.",
        ),
    )


# Passes all of these, and `noise_mode`.
sampling_options = combine_options(
    truncation_options,
    click.option(
        "--noise-mode",
        type=click.Choice(["const", "random", "none"]),
        default="const",
        help="Per-layer noise, which adds fine detail: const (stored in the model), random (from the seed) or none.",
    ),
    view_options("of all images"),
    speed_options,
    file_options,
)


# Passes `seed`.
def seed_option(
    largest: int | None = None,  # None: no limit
) -> typing.Callable:
    return click.option("--seed", type=click.IntRange(0, largest), default=0, help="Random seed.")


# Passes `workers` (int or None).
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Number of processes. Default: one per CPU core."
)

# Passes `data` (str or None).
real_data_option = click.option(
    "--data",
    metavar="PATH",
    help="Dataset of real images: a zip or a folder. Default: the one that the model was trained on.",
)

# Passes `features`, a name of metrics.registry.FEATURES.
features_option = click.option(
    "--features",
    metavar="NAME",
    default="inception-2015",
    help="Features of the metrics: inception-2015 (standard, downloaded once), or efficientnet-lite0 (needs "
    "pip install 'stylegan-cli[metrics]', no download).",
)

# Passes `gpus` (int or None).
gpus_option = click.option(
    "--gpus",
    type=click.IntRange(1),
    help="Number of processes, one per GPU; without GPUs they share the CPU. Default: 1, or as started by torchrun.",
)


# Passes `detector` (str or None), or another name.
def detector_option(name: str = "detector") -> typing.Callable:
    return click.option(
        "--detector",
        name,
        metavar="FILE",
        help="File with the weights of the network that extracts features (Inception, VGG16, LPIPS or EfficientNet). "
        "Default: found in the folder SGAN_DETECTORS, else downloaded once.",
    )


# Passes `crop` and `pad` (str or None), for `data.codec.padding`.
crop_options = combine_options(
    click.option(
        "--crop",
        type=click.Choice(["center", "pad", "none"]),
        default="center",
        show_default=True,
        help="Method of fitting images with another aspect ratio: center (crop), pad (keep the whole image) or none "
        "(stretch).",
    ),
    click.option(
        "--pad",
        metavar="COLOR|blur",
        help="Padding: a color such as white or #ff8000, or blur (the image, enlarged and blurred). "
        "Only with --crop pad. Default: black.",
    ),
)

# Passes `space`, `loss`, `detector`, `crop`, `pad`: how `sgan project` and `sgan attribute` search latents.
projection_options = combine_options(
    click.option(
        "--space",
        type=click.Choice(["w", "w+", "z"]),
        help="Latent space to search: w (one latent for all layers), w+ (one per layer: closer, but harder to edit) or "
        "z (the model's input, with the class as it is). Default: w, or z in a model without a mapping network, whose "
        "w is z and the class.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["lpips", "discriminator", "efficientnet", "pixel"]),
        help="Distance to minimize: lpips (perceptual), discriminator (features of the model's discriminator), "
        "efficientnet (those of EfficientNet-Lite0, whose weights are installed with metrics) or pixel. Default: lpips "
        "(weights downloaded once), or discriminator if they cannot be downloaded.",
    ),
    detector_option(),
    crop_options,
)
