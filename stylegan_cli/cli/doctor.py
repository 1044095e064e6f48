"""`sgan doctor`"""

from __future__ import annotations

import json
import typing
from dataclasses import asdict

import click

from .options import output_options

if typing.TYPE_CHECKING:
    from ..doctor.checks import Build, Check
    from ..doctor.machine import Advice, Machine

_SLOWER = 3  # exit code of a machine where everything works, but not at full speed
_ORIGINS = {"package": "bundled", "cache": "built before", "now": "built in {seconds:.0f} s"}


@click.command(short_help="Check this machine, build the CUDA kernels and test them.")
@click.option("--build/--no-build", "allow_build", default=True, help="Build missing CUDA kernels, or build nothing.")
@output_options
def command(allow_build: bool, as_json: bool, quiet: bool) -> None:
    """Check this machine, build the CUDA kernels and test them.

    Lists the software and hardware (PyTorch, GPUs, compilers, threads), builds the CUDA kernels for the GPUs,
    compares each kernel with its plain PyTorch reference, and says how to fix what is missing. Without a GPU,
    kernels are built for the architectures in the environment variable SGAN_CUDA_ARCH (such as 90a), else for sm_80.

    Exit codes: 0 (training runs at full speed), 3 (everything works, but slower), 1 (a kernel is wrong).

    \b
    Examples:
      sgan doctor
      sgan doctor --no-build --json
    """
    from ..doctor import checks
    from ..doctor.machine import inspect_machine

    machine = inspect_machine()
    if not as_json:
        click.echo(_machine_table(machine))  # before the build, which may take minutes
    built = checks.build_kernels(allow_build)
    if not as_json:
        click.echo(_build_table(built))
    results = _run_checks(quiet) if built.loaded else []
    todo = checks.advice(machine, built)
    state, sentence = checks.verdict(machine, built, results)
    code = {checks.FULL: 0, checks.SLOWER: _SLOWER, checks.WRONG: 1}[state]
    if as_json:
        result: dict[str, typing.Any] = {
            "verdict": state,
            "exit_code": code,
            "machine": _machine_json(machine),
            "build": asdict(built),
        }
        result["checks"] = [{**asdict(c), "agrees": c.agrees, "speedup": c.speedup} for c in results]
        result["todo"] = [asdict(item) for item in todo]
        click.echo(json.dumps(result, default=str))
    else:
        click.echo(
            "".join(f"\n{part}\n" for part in (_checks_table(results), _advice_text(todo), sentence) if part), nl=False
        )
    click.get_current_context().exit(code)


def _run_checks(quiet: bool) -> list[Check]:
    from tqdm import tqdm

    from ..doctor import checks

    # disable=None: off unless stderr is a terminal
    return list(
        tqdm(checks.check_kernels(), "checking", checks.NUM_CHECKS, leave=False, disable=True if quiet else None)
    )


def _row(name: str, text: str) -> str:
    return f"{name:<14}{text}"


def _machine_json(machine: Machine) -> dict[str, typing.Any]:
    """The fields of `Machine`, with the keys that --json has always used."""
    facts = asdict(machine)
    facts["hinders_use"] = facts.pop("use_blockers")
    facts["hinders_building"] = facts.pop("build_blockers")
    for tool in filter(None, (facts["nvcc"], facts["host_compiler"])):
        tool["found"] = tool.pop("source")
    return facts


def _machine_table(m: Machine) -> str:
    rows = [
        ("stylegan_cli", m.version),
        ("platform", f"{m.platform}, {m.cores} cores available"),
        ("Python", f"{m.python} ({m.python_path})"),
        ("PyTorch", m.torch),
        (
            "CUDA runtime",
            f"{m.cuda_runtime} (PyTorch's)" if m.cuda_runtime else "none: this PyTorch is built without CUDA",
        ),
        ("CUDA driver", f"supports CUDA {m.cuda_driver}" if m.cuda_driver else "none"),
        *((f"GPU {i}", f"{g.name}, {g.architecture}, {g.memory / 2**30:.0f} GiB") for i, g in enumerate(m.gpus)),
        *([] if m.gpus else [("GPU", "none")]),
        ("nvcc", f"{'.'.join(map(str, m.nvcc.version))} ({m.nvcc.path}, from {m.nvcc.source})" if m.nvcc else "none"),
        ("C++ compiler", f"{m.host_compiler.version} ({m.host_compiler.path})" if m.host_compiler else "none"),
        ("ninja", str(m.ninja or "none")),
        ("cache", str(m.cache)),
        ("settings", _variables(m.settings)),
        ("OpenMP", _variables(m.openmp)),
    ]
    return "\n".join(_row(*row) for row in rows)


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items()) or "none"


def _build_table(built: Build) -> str:
    if built.library is None or built.origin is None:
        return _row("kernels", "none")
    origin = _ORIGINS[built.origin].format(seconds=built.seconds)
    names = ", ".join(f"sm_{name}" for name in built.architectures)
    state = "loaded" if built.loaded else "cannot be loaded" if built.problem else "not loaded: no GPU"
    return _row("kernels", f"{origin} for {names}, {state}") + "\n" + _row("", str(built.library))


def _checks_table(results: list[Check]) -> str:
    if not results:
        return ""
    lines = [f"{'kernel':<25}{'type':<10}{'pass':<11}{'speed':>7}   error and tolerance"]
    for c in results:
        speed = f"{c.speedup:.2f} x" if c.speedup else "-"
        lines.append(f"{c.kernel:<25}{c.dtype:<10}{c.what:<11}{speed:>7}   {_agreement(c)}")
    return "\n".join([*lines, "(speed: relative to PyTorch's operations; error: relative to the reference in float64)"])


def _agreement(c: Check) -> str:
    if c.problem:
        return f"FAILS: {c.problem}"
    return f"{c.error:.1e} of {c.allowed:.1e}, " + ("ok" if c.agrees else "WRONG")


def _advice_text(todo: list[Advice]) -> str:
    return "\n".join(["To do:", *(f"  {item.what} {item.todo}" for item in todo)]) if todo else ""
