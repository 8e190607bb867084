"""Any recipe, small: its own networks or sisters of them, on a few pictures in the form of its own data set."""

import io
from pathlib import Path

import datasets
import numpy as np
import timm
import torch
import yaml
from PIL import Image

import dccd_timm.models  # noqa: F401  (its networks)

# In place of networks that are too large to be drawn in a test, or that have to be trained first
SISTERS = {"regnety_160": "regnety_002", "local-dir:output/train/emoji-teacher/best": "test_resnet"}
CLASSES = {"uoft-cs/cifar100": 100, "ILSVRC/imagenet-1k": 1000, "data/fashion-mnist": 10, "data/emoji": 88}
SIDES = {
    "uoft-cs/cifar100": (32, 32, 3),
    "ILSVRC/imagenet-1k": (80, 80, 3),
    "data/fashion-mnist": (28, 28),
    "data/emoji": (64, 64, 3),
}


def pictures(folder: Path, name: str, image: str, target: str, splits: tuple[str, str]) -> Path:
    """Eight pictures a split under the data set's own column and split names; written once."""
    place = folder / name
    for number, split in enumerate(splits):
        path = place / "data" / f"{split}-00000-of-00001.parquet"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        encoded = []
        for _ in range(8):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, SIDES[name], dtype=np.uint8)).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        labels = datasets.ClassLabel(names=[f"class {k}" for k in range(CLASSES[name])])
        features = datasets.Features({image: datasets.Image(), target: labels})
        table = {image: encoded, target: list(range(8))}
        datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    return place


def shrink(recipe: Path, folder: Path) -> list[str]:
    """Flags behind ``-c recipe`` that leave its method as it is and make it a matter of seconds, offline.

    A teacher that would be downloaded gets random weights, in a file of the CIFAR-100 benchmark's layout.
    """
    settings = yaml.safe_load(recipe.read_text())
    reader, _, name = settings["dataset"].partition("/")
    data = pictures(
        folder, name, settings.get("input_key", "image"), settings.get("target_key", "label"),
        (settings.get("train_split", "train"), settings["val_split"]),
    )  # fmt: skip
    flags = [
        "--dataset", f"{reader}/{data}", "-b", 4, "-vb", 8, "-j", 1, "--train-batches-per-epoch", 2, "--epochs", 1,
        "--warmup-epochs", 0, "--device", "cpu", "--output", folder / "out", "--experiment", recipe.stem,
        "--allow-weak-teacher",  # of pictures of noise
    ]  # fmt: skip
    if name == "ILSVRC/imagenet-1k":
        flags += ["--img-size", 64]
    if settings["kd_model_name"] in SISTERS or not settings["kd_model_name"].startswith("local-dir:"):
        teacher = settings["kd_model_name"].split(".")[0]
        teacher = SISTERS.get(teacher, teacher)
        weights = folder / f"{teacher}.pth"
        if not weights.exists():
            torch.manual_seed(0)
            state = timm.create_model(teacher, num_classes=CLASSES[name]).state_dict()
            torch.save({"epoch": 240, "model": state, "accuracy": torch.tensor(1.0), "optimizer": {}}, weights)
        flags += ["--kd-model-name", teacher, "--kd-teacher-checkpoint", weights]
        if name == "ILSVRC/imagenet-1k" and not teacher.startswith("deit"):  # which has one size
            flags += ["--kd-teacher-img-size", "student"]
    return [str(flag) for flag in flags]
