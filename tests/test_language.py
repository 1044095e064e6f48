"""Words that docs/glossary.md rules out. A word is one of letters alone, so parts of identifiers count too."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Files and folders to check.
CHECKED = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    ".github",
    ".ci",
    "docs",
    "mkdocs.yml",
    "pyproject.toml",
    "setup.py",
    "stylegan_cli",
    "csrc",
    "tests",
    "benchmarks",
)

WORDS = {  # what is ruled out, as a pattern -> what to write
    "pictures?": "image",
    "drawings?": "generated image",
    "(re)?draw(s|n)?|drew": "generate, synthesize, sample or render",
    "paint(s|ed)?": "generate or render",
    "films?": "video",
    "(training|data) sets?": "dataset",
    "foreign (file|checkpoint)s?": "checkpoint",
    "that comes? (with the package|along)": "bundled",
    "shall": "must, will or should",
    "left out": "name the default, or: skipped, omitted",
    "(?<!there )is no(?! longer| more)": "is not a",
    "so many": "the number of",
    "anew": "again",
    "learnt": "learned",
    "told|tells": "says, reports, shows",
    "mends?|mended|cures?|cured": "fix",
    "amiss": "wrong",
    "farewell|patiently|vain": "plain words",
    "asked for": "requested",
    "theirs|mine": "name what it is",
}
EXCEPTIONS = (  # (beginning of the file's name, pattern of what may stand there)
    (
        "",
        r"--draws|`draws`|\.draws\b|\bdraws(?=[:=\"])|\bdraw ?(\{k\}|\d)",
    ),  # an option, and names of columns and files
    ("", r"(?i)(synthesis|self)\.pictures|\"pictures\.torgb"),  # a name of weights in files
    ("docs/glossary.md", r"\|[^|]*\|$"),  # the column of what not to write
    ("CONTRIBUTING.md", r"ours to theirs"),
    ("stylegan_cli/data/images.py", r"(?i)\bdraw\b"),  # Pillow's name for what lines and text are put on with
    ("stylegan_cli/data/markers.py", r"ImageDraw\.Draw"),
    ("stylegan_cli/inversion/histogram.py", r"(?i)\b_?draw"),
    ("stylegan_cli/metrics/spectrum_plots.py", r"(?i)\bdraw\b"),
    ("stylegan_cli/session/equivariance.py", r"\bDraw\b"),
    ("stylegan_cli/inversion/attribution.py", r'"drawn"'),  # a key in the cache
    ("benchmarks/measure_modes.py", r"\bDraw\b"),
    ("benchmarks/table.py", r'"pictures?"'),  # in results of before
    ("tests/test_benchmarks.py", r'"picture"'),
    ("tests/cli/test_help.py", r'"Left out"'),
)
PATTERNS = {
    re.compile(rf"(?<![A-Za-z]){pattern if '|' not in pattern else f'(?:{pattern})'}(?![A-Za-z])", re.I): instead
    for pattern, instead in WORDS.items()
}
BINARY = {".png", ".gif", ".webp", ".zip", ".safetensors", ".npz"}
OWN = ("tests/test_language.py", "tests/training/old", "benchmarks/results")


def files():
    listed = subprocess.run(["git", "ls-files", *CHECKED], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = [n for n in listed.stdout.splitlines() if Path(n).suffix not in BINARY and not n.startswith(OWN)]
    return [n for n in names if (ROOT / n).is_file()]


def complaints(name, text):
    allowed = [pattern for start, pattern in EXCEPTIONS if name.startswith(start)]
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in allowed:
            line = re.sub(pattern, "", line)
        for pattern, instead in PATTERNS.items():
            if match := pattern.search(line):
                yield f"{name}:{number}: {match[0].strip()!r}: {instead}"


def test_words():
    found = [c for name in files() for c in complaints(name, (ROOT / name).read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_ruled_out_words_are_found():
    text = "Left out: all.\nThe Picture of\nis_drawn\nIt is no file.\nThere is no file.\n--draws 4\nfilmed overdrawn\n"
    assert [c.split(":")[1] for c in complaints("a.md", text)] == ["1", "2", "3", "4"]
