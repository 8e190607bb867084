"""Imports run one way: what each part of the package may import stands in the table of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dccd_timm"
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRY = ("__init__", "__main__")  # the public names and the programs: they may import everything


def table():
    """Rows of CONTRIBUTING.md, top to ground: package -> what it may import."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    below = {}
    for name, allowed in reversed(rows):
        below[name] = set(below) if "everything below" in allowed else set(allowed.split())
    return below


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path):
    """Parts of dccd_timm that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "dccd_timm":
                yield from (alias.name for alias in node.names)
            elif (node.module or "").startswith("dccd_timm."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("dccd_timm."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_and_files_stay_small(path):
    part = part_of(path)
    if part not in ENTRY and path.stem != "__main__":
        assert set(imported_parts(path)) <= table()[part] | {part}
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in ("utils", "common", "helpers")


def test_the_table_names_every_package_and_has_no_circle():
    rows = table()
    parts = {part_of(path) for path in FILES} - set(ENTRY)
    assert set(rows) == parts
    seen = set()
    for part, below in rows.items():
        assert below <= seen
        seen.add(part)


def test_any_stays_rare():
    lines = [line for path in FILES for line in path.read_text().splitlines() if re.search(r"\bAny\b", line)]
    assert len(lines) < 60


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_has_its_tests_at_the_same_path(path):
    if not path.name.startswith("__"):
        folder = ROOT / "tests" / path.relative_to(PACKAGE).parent
        assert (folder / f"test_{path.name}").is_file()
