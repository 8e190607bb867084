"""The examples run as they are: loops of one's own, and the notebook."""

import json

import pyarrow.parquet
import pytest
import timm

from tests.conftest import ROOT, run_python

EXAMPLES = ROOT / "examples"


def run(arguments, cwd):
    done = run_python(arguments, cwd=cwd, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["loop.py", "accelerate_loop.py", "lightning_module.py"])
def test_a_loop_of_ones_own(name, teacher, folders, tmp_path):
    data = [folders / "train"] + ([folders / "validation"] if name == "loop.py" else [])
    run([EXAMPLES / name, teacher, *data, "--epochs", 1], tmp_path)
    student = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True)
    assert student.num_classes == 3 and student.pretrained_cfg["input_size"] == (3, 48, 48)


def fewer(folder):
    """The quickstart's images, a tenth of each split."""
    folder.mkdir()
    for file in (ROOT / "recipes" / "quickstart" / "fashion-mnist").rglob("*.parquet"):
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(table.slice(0, len(table) // 10), folder / file.name)
    return folder


def test_the_notebook(tmp_path):
    """Its cells in one process, on fewer images and epochs: what it writes goes to a copy of its output folder."""
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for written, short in (
        ('"3"', '"1"'),
        ('"recipes/quickstart.yaml"', f'"recipes/quickstart.yaml", "--dataset", "hfids/{fewer(tmp_path / "images")}"'),
        ("output/notebook", str(tmp_path)),
        ('"--experiment"', '"-j", "0", "--experiment"'),
    ):
        assert written in code
        code = code.replace(written, short)
    shown = run(["-c", code], EXAMPLES)
    assert all(f"{name}: 0." in shown for name in ("teacher", "student", "control"))
