"""The history of a run: where its settings changed. A list of {kimg, changes} in config.json, oldest first.

`changes` maps the dotted name of a setting to [before, now]. It is derived from the settings that the training states
were saved with, so that a run that is killed, or resumed from an older state, keeps a true history.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .records import number, read_config

HISTORY = "history"  # its name in config.json

# Settings that do not change what is learned.
_NO_CHANGE = ("recipe", "kimg", "snap", "gpus", "batch_gpu", "data.path", "segmenter", HISTORY)

Changes = dict[str, list[Any]]  # dotted name of a setting -> [before, now]


def changed_settings(
    before: dict[str, Any],  # contents of config.json
    now: dict[str, Any],
) -> Changes:
    """The settings that differ and that matter, of those that both versions of the program know."""
    old, new = flatten(before), flatten(now)
    names = [
        name for name in old if name not in _NO_CHANGE and name in new and _contents(new[name]) != _contents(old[name])
    ]
    return {name: [old[name], new[name]] for name in names}


def _contents(value: Any) -> Any:
    """Files in a list are the same wherever they lie."""
    if not isinstance(value, list):
        return value
    return [
        {k: v for k, v in x.items() if k != "path"} if isinstance(x, dict) and "content_hash" in x else x for x in value
    ]


def read_history(
    folder: Path,  # of a run
) -> list[dict[str, Any]]:
    """The entries of config.json that can be read."""
    entries = read_config(folder).get(HISTORY)
    return [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and number(entry.get("kimg")) is not None and isinstance(entry.get("changes"), dict)
    ]


def extend_history(
    history: list[dict[str, Any]],
    kimg: float,  # of the state that the run continues from
    changes: Changes,  # since that state was saved
) -> list[dict[str, Any]]:
    """Replace what was recorded after that state by the changes that hold from there on."""
    kept = [entry for entry in history if entry["kimg"] < kimg]
    return kept + ([{"kimg": kimg, "changes": changes}] if changes else [])


def describe_changes(
    changes: Changes,
) -> str:
    """'gamma 1 -> 2, batch 8 -> 16', with the images of another dataset as one change."""
    pairs = {name: pair for name, pair in changes.items() if isinstance(pair, list) and len(pair) == 2}
    texts = [f"{name} {before} -> {now}" for name, (before, now) in pairs.items() if not name.startswith("data.")]
    if "data.mirror" in pairs:
        texts.append(f"mirror {pairs['data.mirror'][0]} -> {pairs['data.mirror'][1]}")
    if "data.content_hash" in pairs:
        before, now = pairs.get("data.num", ["", ""])
        texts.append(f"other images ({before} -> {now})" if now else "other images")
    return ", ".join(texts)


def flatten(
    values: Any,  # JSON
    name: str = "",
) -> dict[str, Any]:
    """Nested settings with dotted names."""
    if not isinstance(values, dict):
        return {name: list(values) if isinstance(values, tuple) else values}
    return {k: v for key, part in values.items() for k, v in flatten(part, f"{name}.{key}".strip(".")).items()}
