"""The pages of the repository: README as the door, and the others beside what they document."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "models/README.md",
        "serve_configs/README.md",
        "runtime/api/README.md",
        "runtime/cli/README.md",
        "tests/README.md",
        "benchmarks/README.md",
        ".github/CONTRIBUTING.md",
    )
}
DEPLOYING, CLIENTS, OPERATORS = (
    PAGES[name] for name in ("serve_configs/README.md", "runtime/api/README.md", "runtime/cli/README.md")
)
MODELS = PAGES["models/README.md"]


def blocks(page, language):
    """The blocks of code of a page that are said to be of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def rows(page, heading):
    """The rows of the tables under a heading, as lists of cells."""
    text = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, flags=re.MULTILINE | re.DOTALL)[1]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
