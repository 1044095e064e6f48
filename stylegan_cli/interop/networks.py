"""Finds the networks in a file of a PyTorch program, wherever they are, and reads them.

A generator is recognized by one tensor, whatever its path: bare or in {'g_ema': ...} and {'state_dict': {'G': ...}},
with prefixes such as `module.` and `decoder.`, as a state dictionary, as a whole module, or in a tuple (G, D, G_ema).
"""

from __future__ import annotations

import re
from typing import Any

from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..pickled import Part, PickleError
from . import nvidia, nvidia_state, nvidia_stylegan3, r3gan, rosinality
from .checkpoint import Checkpoint, FormatError, Loadable, OtherContentError
from .identify import refuse_variants
from .modules import Contents, Settings, read_tree
from .nvidia_writer import NetworkCall, read_calls

_NVIDIA, _NVIDIA3, _ROSINALITY = "synthesis.b4.const", "synthesis.input.freqs", "input.input"  # of the generators
_NVIDIA_D, _ROSINALITY_D = "b4.out.weight", "final_linear.1.weight"  # and of the discriminators
_GENERATORS = (_NVIDIA, _NVIDIA3, _ROSINALITY, r3gan.GENERATOR)
_DISCRIMINATORS = (_NVIDIA_D, _ROSINALITY_D, r3gan.DISCRIMINATOR)
_MAX_NETWORKS = 32  # in one file
_AVERAGE = re.compile(r"ema|avg|average|shadow|^gs$", re.IGNORECASE)  # in the name of a moving average
_MEANS_OF_W = ("latent_avg", "mean_latent", "w_avg", "dlatent_avg")
_TRAINED = ("g", "netg", "g_state_dict")  # names of a generator that is not a moving average


def read_networks(file: Part) -> Checkpoint:
    """Raises PickleError and FormatError, and OtherContentError if there is no generator."""
    tree = read_tree(file)
    if isinstance(tree, dict) and isinstance(tree.get("G_ema"), NetworkCall):
        return read_calls(tree["G_ema"], tree["D"] if isinstance(tree.get("D"), NetworkCall) else None)
    contents = Contents()
    contents.add(tree)
    refuse_variants(contents)
    prefix, mark, others = _choose(contents, _GENERATORS)
    w_avg = _mean_of_w(contents, prefix) if mark == _ROSINALITY else None
    generator, tensors, notes = _generator_at(contents, prefix, mark, w_avg)
    discriminator, d_tensors, d_notes = _discriminator_of(contents, generator)
    is_module = prefix.rstrip(".") in contents.modules
    if mark == _ROSINALITY:
        measure = w_avg is None
    elif mark == r3gan.GENERATOR:  # the mean of z is 0
        measure = generator.c_dim > 0
    else:  # a module without it is incomplete
        measure = not is_module and "mapping.w_avg" not in contents.under(prefix)
    guesses = ("The file has no mean of w; it was measured with 10,000 latents.",) if measure else ()
    settings = tree if isinstance(tree, dict) else {}
    return Checkpoint(
        _format(prefix, mark, is_module),
        generator,
        tensors,
        discriminator,
        d_tensors,
        _probability(contents, settings),
        _data(settings),
        notes=(*_choice_notes(contents, prefix, others), *notes, *d_notes, *guesses),
        measure_w_avg=measure,
    )


def _choose(
    contents: Contents,
    marks: tuple[str, ...],
) -> tuple[str, str, list[str]]:  # prefix of the network's tensors, its mark, the prefixes of the others
    """Choose a moving average if there is one, the last network of a tuple, else the first."""
    found = _find(contents, marks)
    if not found:
        raise OtherContentError("it has no generator of a known kind")
    first = max(found, key=lambda pair: _rank(pair[0]))  # the first of equals
    return (*first, [prefix for prefix, _ in found if prefix != first[0]])


def _find(contents: Contents, marks: tuple[str, ...]) -> list[tuple[str, str]]:  # prefixes and marks
    ends = tuple(f".{mark}" for mark in marks)
    paths = [path for path in contents.tensors if path.endswith(ends) or path in marks]
    if len(paths) > _MAX_NETWORKS:
        raise PickleError(f"it has {len(paths)} networks")
    return [(path.removesuffix(mark), mark) for path in paths for mark in marks if f".{path}".endswith(f".{mark}")]


def _rank(prefix: str) -> tuple[bool, int]:
    index = re.match(r"\d{1,2}", prefix)
    return any(_AVERAGE.search(word) for word in prefix.split(".")), int(index[0]) if index else -1


def _generator_at(
    contents: Contents, prefix: str, mark: str, w_avg: Loadable | None
) -> tuple[GeneratorConfig, dict[str, Loadable], tuple[str, ...]]:
    if mark == _ROSINALITY:
        return rosinality.generator_of(_own_tensors(contents, prefix), w_avg)
    module = contents.modules.get(prefix.rstrip("."))
    if mark == r3gan.GENERATOR:
        return (*r3gan.generator_of(contents.under(prefix), module), ())
    if mark == _NVIDIA3:
        if module is None:
            return nvidia_stylegan3.state_generator_of(contents.under(prefix))
        return nvidia_stylegan3.generator_of(module)
    if module is not None:
        return (*nvidia.generator_of(module), ())
    return nvidia_state.generator_of(contents.under(prefix))


def _own_tensors(contents: Contents, prefix: str) -> dict[str, Any]:
    """The tensors of a generator without what is beside them in a flat file: a mean of w, other networks."""
    marks = (*_GENERATORS, *_DISCRIMINATORS)
    others = tuple(
        {path.removesuffix(mark) for path in contents.tensors for mark in marks if path.endswith("." + mark)}
    )
    nested = tuple(other.removeprefix(prefix) for other in others if other.startswith(prefix) and other != prefix)
    return {n: t for n, t in contents.under(prefix).items() if n not in _MEANS_OF_W and not n.startswith(nested)}


def _discriminator_of(
    contents: Contents, generator: GeneratorConfig
) -> tuple[DiscriminatorConfig | None, dict[str, Loadable], tuple[str, ...]]:
    try:
        prefix, mark, _ = _choose(contents, _DISCRIMINATORS)
    except OtherContentError:
        return None, {}, ()
    module = contents.modules.get(prefix.rstrip("."))
    if mark == _NVIDIA_D and module is not None:
        return (*nvidia.discriminator_of(module), ())
    weights = contents.under(prefix)
    try:
        if mark == _NVIDIA_D:
            return (*nvidia_state.discriminator_of(weights), ())
        if mark == r3gan.DISCRIMINATOR:
            return (*r3gan.discriminator_of(weights, module), ())
        return (*rosinality.discriminator_of(weights, generator), ())
    except FormatError as e:  # the generator is useful without it
        return None, {}, (f"The discriminator is omitted: {e}.",)


def _mean_of_w(contents: Contents, prefix: str) -> Loadable | None:
    """The mean that is nearest to a generator: beside its tensors, or in one of the dictionaries around it."""
    places = [prefix]
    while places[-1]:
        parent = places[-1][:-1].rpartition(".")[0]
        places.append(f"{parent}." if parent else "")
    paths = (place + name for place in places for name in _MEANS_OF_W)
    return next((t for path in paths if (t := contents.tensors.get(path)) and len(t.size) in (1, 2)), None)


def _choice_notes(contents: Contents, prefix: str, others: list[str]) -> tuple[str, ...]:
    names, notes = [_name(path) for path in (prefix, *others[:4])], []
    if others:
        kind = "its moving average " if _rank(prefix)[0] else ""
        notes.append(f"The weights of {' and '.join(names[1:])} are omitted; {kind}{names[0]} is used.")
    elif names[0].rpartition(".")[2].lower() in _TRAINED:
        notes.append(f"The file has no moving average of the generator; the weights of {names[0]} are used.")
    if any(re.search(r"(^|\.)encoder\.", path) for path in contents.paths):
        notes.append("The encoder is omitted.")
    if any(path.rpartition(".")[2] == "param_groups" for path in contents.paths):
        notes.append("The states of the optimizers are omitted.")
    return tuple(notes)


def _name(prefix: str) -> str:
    name = prefix.rstrip(".")[-80:]
    return f"network {int(name) + 1}" if re.fullmatch(r"\d{1,2}", name) else name or "the outermost network"


def _format(prefix: str, mark: str, is_module: bool) -> str:
    if mark == r3gan.GENERATOR:
        return "R3GAN pickle" if is_module else "R3GAN state dictionary"
    if mark != _ROSINALITY:
        return "NVIDIA PyTorch pickle" if is_module else "NVIDIA state dictionary"
    return "pSp, e4e or ReStyle file" if prefix.endswith("decoder.") else "rosinality file"


def _probability(contents: Contents, settings: dict) -> float | None:
    """Of adaptive augmentation at the end of training."""
    if (p := contents.tensors.get("augment_pipe.p")) and p.size == ():
        return float(p.load())
    p = settings.get("ada_aug_p")
    return float(p) if (type(p) is int or type(p) is float) and 0 <= p <= 1 else None


def _data(settings: dict) -> str:
    """The path of the training images; empty if the file does not have it."""
    args, dataset = settings.get("args"), settings.get("training_set_kwargs")
    values = args.values if isinstance(args, Settings) else dataset if isinstance(dataset, dict) else {}
    return values["path"][:200] if type(values.get("path")) is str else ""
