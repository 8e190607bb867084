"""Small real data on disk, and a way to run the programs as a user does."""

import atexit
import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

import tests.typecheck  # noqa: F401 - named in pyproject.toml, whose plugin does not import it
from tests.fakes.forks import AT_START, SETTINGS, Forks
from tests.fakes.model_hub import ModelHub
from tests.fakes.model_hub.client import Client

ROOT = Path(__file__).parents[1]
CLASSES = ["circle", "cross", "stripes"]

# What starts programs, trains, or goes through many loaders or pairs of networks; the rest is the unit ring,
# `python -m pytest -m "not slow"`, which is kept near a minute.
SLOW = (
    "benchmarks", "invariants", "processes", "programs", "data/test_hub.py", "data/test_stream.py", "hub/test_push.py",
    "report/test_new_term.py", "run/test_one_teacher.py", "run/test_redraw.py", "task/test_pairs.py",
)  # fmt: skip

# Two workers of pytest on two cores: more threads only get in each other's way.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        path = item.path.relative_to(ROOT / "tests")
        trains_a_teacher = "small" in item.fixturenames
        if trains_a_teacher or any(path.is_relative_to(part) for part in SLOW):
            item.add_marker(pytest.mark.slow)


def picture(label, seed, size=40, channels=3):
    """A noisy picture of one of three kinds that a small network learns to tell apart."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0.4, 0.6)
    shape = [
        (np.hypot(x, y) < 0.3),
        (np.minimum(abs(x), abs(y)) < 0.08),
        (np.sin(40 * (x + y)) > 0),
    ][label]
    pixels = 200 * shape[..., None] * rng.uniform(0.5, 1, channels) + rng.uniform(0, 55, (size, size, channels))
    return Image.fromarray(pixels.squeeze().astype(np.uint8))


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def write_parquet(folder, per_class=(16, 8), shards=2, spoil=(), labels=None, features=True):
    """A folder of parquet shards; ``spoil`` are row numbers of unreadable training images."""
    import datasets

    datasets.disable_progress_bars()
    for split, count, parts in (("train", per_class[0], shards), ("test", per_class[1], 1)):
        rows = [(k % 3, k) for k in range(3 * count)]
        for part in range(parts):
            mine = rows[part::parts]
            images = [
                {
                    "bytes": b"\x89PNG broken" if split == "train" and n in spoil else encoded(picture(c, n)),
                    "path": f"{n}.png",
                }
                for c, n in mine
            ]
            table = {"image": images, "label": [labels[c] if labels else c for c, _ in mine]}
            kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
            if not features:
                kinds["label"] = datasets.Value("int64")
            path = folder / "data" / f"{split}-{part:05d}-of-{parts:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(table, features=datasets.Features(kinds)).to_parquet(path)
    return folder


def write_folders(folder, per_class=(16, 8)):
    """The same pictures as an image folder with train/ and validation/."""
    for split, count in (("train", per_class[0]), ("validation", per_class[1])):
        for number in range(3 * count):
            path = folder / split / CLASSES[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number % 3, number).save(path)
    return folder


@pytest.fixture(scope="session")
def parquet(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("parquet"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("folders"))


def run_program(*arguments, program="train.py", cwd=ROOT, env=None, timeout=300):
    """Run a program, or a module of ours given as ``-m NAME``, in a process of its own."""
    which = program.split() if program.startswith("-m ") else [str(ROOT / program)]
    return run_python([*which, *arguments], cwd=cwd, env=env, timeout=timeout)


def run_python(arguments, processes=1, cwd=ROOT, env=None, timeout=300):
    """Run ``python ARGUMENTS`` in a process of its own, or on so many ranks."""
    arguments, env = [str(word) for word in arguments], env or {}
    if any(name.startswith(AT_START) for name in env):
        assert processes == 1
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd, capture_output=True, text=True, timeout=timeout, env={**os.environ, **SETTINGS, **env},
        )  # fmt: skip
    known = frozenset((name, value) for name, value in os.environ.items() if name.startswith(AT_START))
    return forks(known).run(arguments, processes, cwd, env, timeout)


@functools.cache
def forks(known):
    """The process that forks programs; another one when the variables that its libraries read have changed."""
    server = Forks()
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, parquet):
    """A trained teacher as a run leaves it: the folder of its best/."""
    out = tmp_path_factory.mktemp("teacher")
    done = run_program(
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(16,24,32)", "stem_chs=16", "--img-size", 48, "-b", 16, "-j", 0, "--epochs", 6,
        "--lr", 0.05, "--warmup-epochs", 0, "--scale", 0.8, 1, "--smoothing", 0, "--output", out, "--experiment", "t",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "t" / "best"


@pytest.fixture
def small(parquet, teacher, tmp_path):
    """Flags of a distillation that takes seconds."""
    return [
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 16, "-j", 0, "--epochs", 2,
        "--lr", 0.05, "--warmup-epochs", 0, "--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "dccd",
        "--output", tmp_path / "out", "--experiment", "run",
    ]  # fmt: skip


@pytest.fixture
def fresh_accelerator():
    """What accelerate remembers for a whole process is forgotten before and after."""

    def forget():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    forget()
    yield
    forget()


WRITE, READ = "hf_writeTokenOfAlice1", "hf_readTokenOfAlice22"


@pytest.fixture(scope="session")
def model_hub(tmp_path_factory):
    hub = ModelHub(tmp_path_factory.mktemp("hub"), {WRITE: ("alice", "write"), READ: ("alice", "read")})
    yield hub
    hub.stop()


@pytest.fixture(scope="session")
def tiny(parquet, teacher):
    return [
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 16, "-j", 0, "--epochs", 3,
        "--lr", 0.1, "--dccd-contrast-weight", 0.1, "--warmup-epochs", 0, "--model-ema", "--model-ema-decay", 0.9999, "--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "dccd",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def pushed(model_hub, tiny, tmp_path_factory):
    """A run that pushed its student after every epoch and at its end, and what it printed."""
    model_hub.faults.clear()  # a test before may have left some
    out = tmp_path_factory.mktemp("run")
    push = ["--push-to-hub", "alice/student", "--hub-interval", 1, "--hub-license", "apache-2.0"]
    done = run_program(
        *tiny, *push, "--output", out, "--experiment", "r", env=model_hub.environment(out / "home", WRITE)
    )
    assert done.returncode == 0, done.stderr
    return out / "r", done


@pytest.fixture(scope="session", params=[True, False], ids=["xet", "lfs"])
def client(request, model_hub, tmp_path_factory):
    client = Client(model_hub.environment(tmp_path_factory.mktemp("home"), xet=request.param))
    client.xet = request.param
    yield client
    client.stop()
