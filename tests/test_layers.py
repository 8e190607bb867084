"""Imports run one way: what each part of the package may import, ground to top (design, section 6)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dccd_timm"
MAY_IMPORT = {
    "batch": "",
    "process": "",
    "recipe": "",
    "losses": "",
    "redundancy": "",
    "guard": "recipe",
    "data": "batch process recipe",
    "models": "recipe",
    "task": "batch recipe losses models",
    "engine": "batch process recipe",
    "evaluate": "batch",
    "checkpoint": "recipe",
    "folder": "recipe checkpoint",
    "assemble": "recipe data models task engine",
    "pictures": "redundancy",
    "evidence": "recipe models evaluate redundancy pictures",
    "card": "recipe",
    "report": "batch recipe guard data models engine checkpoint evidence pictures card",
    "hub": "recipe guard card",
    "finish": "recipe models evaluate checkpoint assemble evidence report hub",
    "run": "batch recipe data models engine evaluate checkpoint folder assemble pictures report hub finish",
    "validate": "recipe data models engine evaluate",
    "cli": "recipe guard run validate",
    "__init__": "losses data task",
}
FILES = sorted(PACKAGE.rglob("*.py"))


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
    allowed = {*MAY_IMPORT[part].split(), part}
    assert set(imported_parts(path)) <= allowed
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in ("utils", "common", "helpers")


def test_the_table_has_no_circle():
    for seen, (part, below) in enumerate(MAY_IMPORT.items()):
        assert set(below.split()) <= set(list(MAY_IMPORT)[:seen]) or part == "__init__"
