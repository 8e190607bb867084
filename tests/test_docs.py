"""README and docs/ say what is true of the code: links, paths, commands and Python blocks are tried."""

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dccd_timm.data.sources.class_map import read_class_map
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.recipe.parse import OneLineParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "recipes/README.md")]
PAGES += sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/runs/*.md")])
OUTLINE = ["Install", "Quickstart", "Results", "Your own data", "Several GPUs", "Resume", "Publish", "From Python",
           "More", "Cite"]  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# what stands for several values in a command of benchmarks/runs/
PLACEHOLDERS = {"S": ["1"], "FLAGS": []}


def blocks(page, language):
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def prose(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """GitHub's names of a page's headings."""
    names = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.append(name if name not in names else f"{name}-{names.count(name)}")
    return names


def commands(page):
    """Programs and their arguments, in code blocks and in the text: ``("train.py", ["-c", ...])``."""
    found = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    found += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    for line in found:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words[:1] in (["python"], ["accelerate"], ["torchrun"]):
            programs = [k for k, word in enumerate(words) if word in ("train.py", "validate.py")]
            words = words[programs[0] :] if programs else []
        if words and words[0] in ("train.py", "validate.py", *PROJECT["scripts"]) and len(words) > 1:
            yield words[0], [value for word in words[1:] for value in PLACEHOLDERS.get(word, [word]) if word != "..."]


def cases(extract):
    return [
        pytest.param(page, item, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, item in enumerate(extract(page))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_pictures_and_paths_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
    for path in re.findall(r"`((?:dccd_timm|tests|benchmarks|recipes|docs)/[\w./*-]*)`", prose(page)):
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize(("page", "command"), cases(commands))
def test_commands_are_understood_by_their_programs(page, command, tmp_path, monkeypatch):
    program, arguments = command
    if program == "dccd-timm" and arguments[0] in ("train", "validate"):
        program, arguments = f"dccd-{arguments[0]}", arguments[1:]
    if (program, arguments[0]) == ("dccd-timm", "plan"):
        program, arguments = "train.py", [*arguments[1:], "--plan"]
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for name in ("args.yaml", "recipe.yaml"):
        (tmp_path / name).write_text("")
    best = tmp_path / "output/train/quickstart/best"  # what the quickstart leaves, as far as a parser looks
    best.mkdir(parents=True)
    (best / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="^0$"):
            load_recipe(arguments)
    elif program in ("train.py", "dccd-train"):
        load_recipe(arguments)
    elif program in ("validate.py", "dccd-validate"):
        load_validation(arguments)
    else:
        parsed_by_script(program, arguments, monkeypatch)


def parsed_by_script(program, arguments, monkeypatch):
    """Start a console script and leave it once its parser has read the arguments."""

    class Parsed(Exception):
        pass

    parse = OneLineParser.parse_args

    def stop_after_parsing(self, *given):
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(OneLineParser, "parse_args", stop_after_parsing)
    module, _, function = PROJECT["scripts"][program].partition(":")
    with pytest.raises(Parsed):
        getattr(importlib.import_module(module), function)(arguments)


@pytest.mark.parametrize(("page", "block"), cases(lambda page: blocks(page, "python")))
def test_python_blocks_compile_and_what_they_import_exists(page, block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_environment_variables_that_are_read_are_documented():
    """Names in capitals with an underscore (or RANK) that stand as strings in modules which read os.environ."""
    page = (ROOT / "docs" / "runs.md").read_text().partition("## Environment variables")[2]
    read = set()
    for path in (ROOT / "dccd_timm").rglob("*.py"):
        text = path.read_text()
        if "os.environ" in text and path.name != "workers.py":  # that one sets some for its server and reads none
            read |= set(re.findall(r"""["']((?:[A-Z][A-Z0-9]*_[A-Z0-9_]+)|RANK)["']""", text))
    assert {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} <= read
    assert not {name for name in read if f"`{name}`" not in page}


def test_the_class_map_of_the_page_of_data_is_one(tmp_path):
    (block,) = blocks(ROOT / "docs" / "data.md", "text")
    (tmp_path / "classes.txt").write_text(block)
    recipe = load_recipe(["--data-dir", str(tmp_path), "--class-map", str(tmp_path / "classes.txt")])
    assert read_class_map(recipe).table == {"daisy": 0, "rose": 1, "tulip": 2}


def test_readme_is_short_and_has_its_outline():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 140
    assert re.findall(r"^## (.+)$", prose(readme), re.MULTILINE) == OUTLINE


@pytest.mark.parametrize("mark", ["quickstart", "tests"])
def test_ci_finds_its_commands_in_readme(mark):
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines.count(f"<!-- ci: {mark} -->") == 1
    assert lines[lines.index(f"<!-- ci: {mark} -->") + 1] == "```bash"


def test_every_page_of_docs_is_linked_from_readme():
    linked = set(re.findall(r"\]\((docs/[\w.-]+)", (ROOT / "README.md").read_text()))
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def test_citation_names_this_version_and_the_paper_of_the_method_page():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == PROJECT["version"]
    doi = re.search(r"^ +doi: (.+)$", citation, re.MULTILINE)[1]
    assert f"https://doi.org/{doi}" in (ROOT / "docs" / "method.md").read_text()


def test_the_published_numbers_of_a_recipe_are_those_of_the_table():
    """Each recipe's header has every number of its row in recipes/README.md."""
    rows = re.findall(r"^\| \[[^\]]+\]\(((?:cifar100|imagenet)/[\w-]+\.yaml)\) \| (.*) \|$",
                      (ROOT / "recipes" / "README.md").read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) == 18
    for path, row in rows:
        comments = [line for line in (ROOT / "recipes" / path).read_text().splitlines() if line.startswith("#")]
        header = "\n".join(comments)
        published = header[header.index("# Published") :]
        cells = row.split(" | ") if path.startswith("cifar100") else row.split(" | ")[1:]
        for number in re.findall(r"\d\d\.\d+", " ".join(cells[1:])):
            assert number in published, (path, number)
    text = {name: (ROOT / "recipes" / "imagenet" / f"{name}.yaml").read_text() for name in
            ("resnet34-resnet18", "resnet50-mobilenetv1")}  # fmt: skip
    assert "WKD-L + WKD-F 72.76 (the highest with code" in text["resnet34-resnet18"]
    assert "NORM 74.26 (the highest" in text["resnet50-mobilenetv1"]
