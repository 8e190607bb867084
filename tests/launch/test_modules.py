"""``--import``: a user's modules and files are imported first, in loader workers too, and each mistake is one line."""

import sys

import pytest

from dccd_timm.errors import UserError
from dccd_timm.launch.modules import import_modules, worker_preparation
from dccd_timm.recipe import load_recipe, load_validation


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, from which nothing stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["own_net_a", "own_net_a.py", "./own_net_a.py", "{folder}/own_net_a.py"])
def test_a_module_or_a_file_of_the_current_folder(name, folder):
    (folder / "own_net_a.py").write_text("runs = globals().get('runs', 0) + 1")
    for _ in range(2):  # rank and worker of one process: it runs once
        import_modules([name.format(folder=folder)])
    assert sys.modules["own_net_a"].runs == 1


def test_a_file_elsewhere_with_another_beside_it_and_a_package(folder):
    for name, text in (("code/own_net_b.py", "from own_blocks import x"), ("code/own_blocks.py", "x = 3"),
                       ("own_pack/__init__.py", ""), ("own_pack/nets.py", "y = 4")):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    import_modules(["code/own_net_b.py", "own_pack.nets"])
    assert sys.modules["own_net_b"].x == 3 and sys.modules["own_pack.nets"].y == 4


def test_a_worker_imports_them_too(folder):
    (folder / "own_net_c.py").write_text("")
    worker_preparation(["own_net_c.py"])(0)
    assert "own_net_c" in sys.modules


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("own_nto", None, "own_nto cannot be imported: No module named 'own_nto'; a file is named with its ending"),
        ("own_nto.py", None, "own_nto.py does not exist"),
        ("code/own_net", "", "no .py file"),
        ("own.net.py", "", "has no dot: rename the file"),
        ("json.py", "", "Python has another module json: rename the file"),
        ("datasets.py", "", "Python has another module datasets: rename the file"),
        ("own_bad.py", "import no_such_block", "cannot be imported: No module named 'no_such_block'"),
        ("own_bad.py", "\nx = 1 / 0", "ZeroDivisionError: division by zero (own_bad.py, line 2)"),
        ("own_bad.py", "def f(:", "SyntaxError: "),
    ],
)
def test_a_mistake_is_one_line(name, text, said, folder):
    if text is not None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(UserError) as caught:
        import_modules([name])
    assert (
        said in str(caught.value) and str(caught.value).startswith(f"--import {name}") and "\n" not in str(caught.value)
    )


def test_it_is_repeatable_takes_one_value_and_is_timms_option_too(folder):
    (folder / "r.yaml").write_text("import: [a, b.py]")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    data = ["--data-dir", "x"]
    assert load_recipe(["--import", "a", "--import", "b.py", *data]).device_modules == ("a", "b.py")
    assert load_recipe(["--device-modules", "a", "b.py", "--import", "c", *data]).device_modules == ("a", "b.py", "c")
    assert load_recipe(["-c", "r.yaml", *data]).device_modules == ("a", "b.py")
    assert load_recipe(["-c", "r.yaml", "--import", "c.py", *data]).device_modules == ("c.py",)
    options = load_validation(["--import", "a", "run", *data])
    assert options.device_modules == ("a",) and options.model == "local-dir:run"
    with pytest.raises(UserError, match="did you mean --import"):
        load_recipe(["--imports", "a"])
