"""Words that read as translated, with what to write instead; in the package, its documents, its configurations and its tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b": "again, or a verb with re-",
    r"\bbeside\b": "next to, compared with",
    r"\bas many\b": "equally many",
    r"\bdear(er|est)?\b": "high-energy, expensive",
    r"\btakes? away\b": "removes",
    r"\b(goes|go|went) on\b": "resumes, continues",
    r"\b(nobody|somebody)\b": "name who does it",
    r"\bwhatever\b": "any",
    r"\bof before\b": "earlier",
    r"\bin small[,;:)\"]": "scaled-down",
    r"\bat hand\b": "available",
    r"\basked for\b": "requested",
    r"\b(such|other) ones\b": "repeat the noun",
    r"\bon paper\b": "estimated, or in closed form",
    r"\bfrom \S+ on\b": "at least, after",
    r"\be\.g\.": "for example",
    r"\d %": "a percent sign without a space",
    r"\blooks? at\b": "reads, checks",
    r"\ballows? no\b": "supports no",
}
PATTERNS = (
    "*.md",
    "Makefile",
    "fm_lightning/**/*.py",
    "callbacks/*.py",
    "benchmarks/*.py",
    "configs/**/*.yaml",
    "docs/**/*.md",
    "tests/**/*.py",
)
FILES = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern)) if path != Path(__file__)]


def translated(text: str) -> list[str]:
    """Every listed word in a text, with what to write instead."""
    return [
        f"{match[0]!r}: {instead}"
        for pattern, instead in INSTEAD.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def prose(path: Path) -> str:
    """A file's text; in Python without remainders (``7 % n``), which are no percentages."""
    text = path.read_text()
    return re.sub(r"\d % [\w(]", "", text) if path.suffix == ".py" else text


def test_the_list_finds_what_it_names():
    found = translated("Sampled anew, beside 5 % of somebody's runs")
    assert [line.partition(":")[0] for line in found] == ["'anew'", "'beside'", "'somebody'", "'5 %'"]
    assert not translated("Resampled, next to 5% of other runs")


def test_no_file_reads_as_translated():
    found = {str(path.relative_to(ROOT)): translated(prose(path)) for path in FILES}
    assert not {path: words for path, words in found.items() if words}
