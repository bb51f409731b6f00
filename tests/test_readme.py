"""The README keeps its word: its Python runs and prints what it says, its commands and links exist."""

import re
import subprocess
import sys
from pathlib import Path

from isthmus.cli import COMMANDS
from isthmus.version import __version__

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_prints_what_the_readme_shows() -> None:
    [(code, shown)] = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, done.stdout), done.stdout


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    for cited in ("Understanding of Independent Subnetwork Training", "Shulgin", "Richtárik", "ICML 2024", "2306.1648"):
        assert cited in citation


def test_every_command_named_exists() -> None:
    named = set(re.findall(r"^isthmus (\w+) (?:--|runs/)", README, flags=re.MULTILINE))
    assert named <= set(COMMANDS)
    assert {"analyze", "train", "report"} <= named
