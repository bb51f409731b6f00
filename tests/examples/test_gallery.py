"""The pages of docs/gallery are what their scripts print and draw today."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("gallery_build", ROOT / "docs" / "gallery" / "build.py")
assert SPEC is not None
assert SPEC.loader is not None
build = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = build  # its dataclass looks for its module there
SPEC.loader.exec_module(build)
NUMBER = re.compile(r"\d+\.?\d*(?:e[+-]?\d+)?")


@pytest.mark.parametrize("script", build.SCRIPTS, ids=build.page_name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_page_is_what_its_script_gives(script: Path, tmp_path: Path) -> None:
    kept = (build.HERE / f"{build.page_name(script)}.md").read_text(encoding="utf-8")
    made = build.page(script, tmp_path)
    assert NUMBER.sub("0", made) == NUMBER.sub("0", kept)
    for now, before in zip(NUMBER.findall(made), NUMBER.findall(kept), strict=True):
        assert float(now) == pytest.approx(float(before), rel=2e-3, abs=2e-4)  # the last digit shown may differ
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == sorted(re.findall(r"\]\(([\w-]+\.png)\)", kept))
    assert all((build.HERE / name).exists() for name in drawn)


def test_every_page_has_a_script() -> None:
    assert {path.stem for path in build.HERE.glob("*.md")} == {build.page_name(script) for script in build.SCRIPTS}


def test_cells_are_words_and_code() -> None:
    code = "x = 1\n# inside\ny = 2"
    head, found = build.cells(f'"""Title.\n\nMore."""\n\n# %%\n# Words\n# and more.\n\n{code}\n\n# %%\n# End.\n')
    assert head == "Title.\n\nMore."
    assert [(cell.words, cell.code) for cell in found] == [("Words\nand more.", code), ("End.", "")]
