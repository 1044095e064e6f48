"""What `sgan translate` does with translators of pix2pix: fit them, and use them without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MisuseError
from .call import Call, keep_freed_memory, resolve_device
from .encoder import given_options, pop_shared, refuse_changes, run_fit
from .progress import bar

if TYPE_CHECKING:
    from ..progress import Progress
    from ..session import TranslateRequest
    from ..session.translate import TranslateResult, TranslateStream

# The options of `sgan translate fit` that have an effect on pix2pix.
_FIT = {"recipe", "task", "data", "source", "kimg", "snap", "batch", "batch_gpu", "gpus", "lr", "held_out", "precision"}
_FIT |= {"seed", "resume", "quiet", "device", "runs", "kernels"}


def fits_pix2pix(
    recipe: str,
    resume: str | None,  # run folder
) -> bool:
    """Whether `sgan translate fit` is about pix2pix."""
    from ..runs.records import PIX2PIX, read_config, recipe_of

    return (recipe if resume is None else recipe_of(read_config(Path(resume)))) == PIX2PIX


def fit_pix2pix(
    options: dict[str, Any],  # of `sgan translate fit`
) -> None:
    """Fit a translator with the options of the command."""
    from .. import distributed
    from ..training.recipes.pix2pix_run import plan_new_pix2pix, plan_resumed_pix2pix

    resume, device, how = pop_shared(options)
    with bar(how.quiet, leave=False) as progress:
        if resume:
            refuse_changes({"resume", "kimg", "gpus", "batch_gpu", "quiet", "device", "runs", "kernels"})
            plan = plan_resumed_pix2pix(Path(resume), options["kimg"], options["gpus"], options["batch_gpu"])
        else:
            _check_new(options)
            options["gpus"] = options["gpus"] or distributed.launcher_world_size()
            kept = {name: value for name, value in options.items() if name in _FIT - {"recipe", "task"}}
            plan = plan_new_pix2pix(progress=progress, **kept)
    run_fit(plan, device, how)


def _check_new(options: dict[str, Any]) -> None:
    if options["task"] != "pairs":
        raise click.UsageError(f"--recipe pix2pix is for --task pairs, not {options['task']}.")
    for name in given_options() - _FIT:
        option = "--" + name.replace("_", "-")
        raise click.UsageError(f"{option} has no effect on --recipe pix2pix, which uses no model. Remove it.")
    if missing := [name for name in ("data", "source") if options[name] is None]:
        what = "the images" if missing[0] == "data" else "the images to translate from"
        raise click.UsageError(f"--recipe pix2pix needs --{missing[0]} PATH, {what}.")


def translate(
    call: Call,
    request: TranslateRequest,
    progress: Progress,
) -> TranslateResult | TranslateStream:
    """Translate images with the file in --encoder if it is a translator; else with a model and its encoder."""
    from ..sampling.translators import find_translator
    from ..session.translators import open_translator, translate_pairs

    if (path := find_translator(request.encoder)) is None:
        return call.open().translate(request, progress)
    for name in sorted(given_options() & {"model", "any_model"}):
        option = "--" + name.replace("_", "-")
        raise MisuseError(f"{option} has no effect on {path}: pix2pix uses no model.", hint="Remove it.")
    keep_freed_memory()
    arguments = click.get_current_context().find_root().obj or ["sgan"]
    translator = open_translator(path, request, resolve_device(call.device))
    return translate_pairs(translator, request, progress, arguments)
