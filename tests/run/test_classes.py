"""Class names that two sides know are compared; what the numbers are then is what the colours are."""

import pytest
import torch

from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.models.classes import class_names
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.run.classes import number_resumed
from dccd_timm.run.pieces import build_training, open_splits
from dccd_timm.run.validate import validate
from tests.run.colours import COLOURS, SIZE, knowing, save_knowing, write_folder, write_parquet

ALL = list(COLOURS)
PLAIN = {"class1": COLOURS["ant"], "class2": COLOURS["bee"], "class10": COLOURS["cat"]}


def validated(model, *flags):
    return validate(load_validation([*map(str, (model, *flags, "-j", 1, "-b", 4, "--device", "cpu"))]))


def built(recipe_flags):
    recipe = load_recipe([
        "--model", "test_resnet", *map(str, recipe_flags), "--img-size", str(SIZE), "-j", "0", "-b", "4",
        "--device", "cpu",
    ])  # fmt: skip
    splits = open_splits(recipe)
    training = build_training(recipe, splits, start_accelerator(recipe), 0, None)
    training.loader.close()
    return splits, training


def targets(loader):
    return [target for batch in loader for target in batch.target.tolist()]


def top1(network, loader):
    right = [(network(batch.views[:, 0]).argmax(1) == batch.target).float() for batch in loader]
    return 100 * torch.cat(right).mean().item()


@pytest.mark.parametrize("there", [["bee", "cat", "dog"], ["dog", "ant"]])
def test_a_split_without_a_class_is_numbered_by_the_training_split(tmp_path, there, fresh_accelerator, caplog):
    write_folder(tmp_path / "data/train", *ALL)
    write_folder(tmp_path / "data/val", *there, images=2)
    splits, training = built(["--data-dir", tmp_path / "data"])
    assert splits.val.names == splits.train.names == ALL
    assert targets(training.val) == sorted(ALL.index(name) for name in there for _ in range(2))
    lacking = [name for name in ALL if name not in there]
    line = f"split validation has no images of {len(lacking)} of the 4 classes of split train: {', '.join(lacking)}"
    assert line in caplog.text
    model = save_knowing(tmp_path / "model", ALL)
    assert validated(model, "--data-dir", tmp_path / "data")["top1"] == 100


@pytest.mark.parametrize("origin", ["", "hfids/"])
def test_an_accent_is_the_same_however_a_name_has_it(origin, tmp_path, fresh_accelerator, caplog):
    """macOS writes "é" in a file name as "e" and an accent; sorted, these come before "ez" and the other after it."""
    colours = {"é": COLOURS["ant"], "e\u0301": COLOURS["ant"], "ez": COLOURS["bee"], "f": COLOURS["cat"]}
    data = tmp_path / "data"
    write_folder(data / "train", "é", "ez", "f", colours=colours)
    write_folder(data / "validation", "e\u0301", "ez", "f", colours=colours)
    model = save_knowing(tmp_path / "model", ["e\u0301", "ez", "f"], colours=colours)
    flags = ["--dataset", f"hfids/{data}"] if origin else ["--data-dir", data]
    splits, training = built([*flags, "--kd-distill-type", "logit", "--kd-model-name", f"local-dir:{model}"])
    assert splits.train.names == splits.val.names == ["ez", "f", "é"]
    assert top1(training.teacher.eval(), training.val) == 100
    assert validated(model, *flags, "--split", "train")["top1"] == 100
    (tmp_path / "map.txt").write_text("f\ne\u0301\nez")
    splits = open_splits(load_recipe([*map(str, flags), "--class-map", str(tmp_path / "map.txt")]))
    assert splits.train.names == splits.val.names == ["f", "é", "ez"]


def test_a_validation_of_the_training_images_is_refused_unless_it_is_asked_for(tmp_path, caplog):
    write_folder(tmp_path, "ant", "bee")
    flags = ["--data-dir", str(tmp_path)]
    with pytest.raises(
        UserError, match=f"{tmp_path} has no folders for its splits, so validation would be the training"
    ):
        open_splits(load_recipe(flags))
    assert open_splits(load_recipe([*flags, "--val-split", ""])).val is None
    open_splits(load_recipe([*flags, "--train-split", "validation"]))
    assert "split validation is the training images: its accuracy says nothing of others" in caplog.text


def test_a_data_dir_that_is_one_split_is_refused_with_the_folder_above(tmp_path):
    root = tmp_path / "my data"
    for split in ("train", "validation"):
        write_folder(root / split, "ant", "bee")
    with pytest.raises(
        UserError, match=f"train is one split, and .*validation beside it .*: give --data-dir '{root}'$"
    ):
        open_splits(load_recipe(["--data-dir", str(root / "train")]))


def test_classes_that_training_does_not_have_are_refused(tmp_path):
    write_folder(tmp_path / "train", "ant", "bee")
    write_folder(tmp_path / "val", "bee", "cat", "dog")
    with pytest.raises(UserError, match="validation has classes that split train does not have: cat, dog; and none of"):
        open_splits(load_recipe(["--data-dir", str(tmp_path)]))


@pytest.mark.parametrize("dataset", ["", "hfids/{}"])
def test_a_model_of_another_order_is_validated_by_names(tmp_path, dataset, fresh_accelerator, caplog):
    """As one of a run that numbered class1, class10, class2 alphabetically."""
    write_folder(tmp_path / "data/validation", *PLAIN, colours=PLAIN)
    model = save_knowing(tmp_path / "model", sorted(PLAIN), colours=PLAIN)
    place = ["--dataset", dataset.format(tmp_path / "data")] if dataset else ["--data-dir", tmp_path / "data"]
    result = validated(model, *place, "--teacher", save_knowing(tmp_path / "teacher", PLAIN, colours=PLAIN))
    assert (result["top1"], result["teacher_top1"], result["agreement"]) == (100, 100, 100)
    assert "split validation has its classes in another order than the model, whose numbers it gets" in caplog.text


def test_a_parquet_column_of_another_order(tmp_path, fresh_accelerator):
    write_parquet(tmp_path / "data/validation-0.parquet", ["dog", "cat", "bee", "ant"])
    model = save_knowing(tmp_path / "model", ALL)
    assert validated(model, "--dataset", f"hfids/{tmp_path / 'data'}")["top1"] == 100


def test_validation_of_classes_that_the_model_does_not_have(tmp_path, fresh_accelerator, caplog):
    write_folder(tmp_path / "data/validation", "ant", "bee", "cat")
    model = save_knowing(tmp_path / "model", ["ant", "bee", "dog"])
    with pytest.raises(UserError, match="has classes that the model does not have: cat; and none of its classes dog"):
        validated(model, "--data-dir", tmp_path / "data")
    other = save_knowing(tmp_path / "other", ["ant", "bee", "cat"], label_names=["Ameise", "Biene", "Katze"])
    assert validated(other, "--data-dir", tmp_path / "data")["top1"] == 100
    assert "(ant, bee, cat; Ameise, Biene, Katze): they are taken to stand in the same order" in caplog.text
    nameless = save_knowing(tmp_path / "nameless", ALL, label_names=None)
    assert validated(nameless, "--data-dir", tmp_path / "data")["top1"] == 100
    assert "the model has 4 classes without names, split validation has 3 (ant, bee, cat)" in caplog.text


def test_folders_of_some_imagenet_classes_are_known_by_their_names(tmp_path, fresh_accelerator):
    """Imagenette's first three: classes 0, 217 and 482 of ImageNet."""
    names = ["n01440764", "n02102040", "n02979186"]
    colours = dict(zip(names, COLOURS.values(), strict=False))
    write_folder(tmp_path / "data/val", *names, colours=colours)
    state = knowing(names, colours).state_dict()
    full = {"fc.weight": torch.zeros(1000, state["fc.weight"].shape[1]), "fc.bias": torch.full((1000,), -1e3)}
    for key, values in full.items():
        values[[0, 217, 482]] = state[key]
    torch.save(state | full, tmp_path / "w.pth")
    flags = ["--checkpoint", tmp_path / "w.pth", "--data-dir", tmp_path / "data", "--img-size", SIZE]
    assert validated("--model=test_resnet", *flags)["top1"] == 100


@pytest.mark.parametrize("as_file", [False, True])
def test_a_teacher_of_another_order_answers_in_that_of_the_data(tmp_path, as_file, fresh_accelerator, caplog):
    for split in ("train", "val"):
        write_folder(tmp_path / "data" / split, *ALL)
    teacher = save_knowing(tmp_path / "teacher", ["cat", "ant", "dog", "bee"])
    flags = ["--kd-model-name", f"local-dir:{teacher}"]
    if as_file:
        flags = ["--kd-model-name", "test_resnet", "--kd-teacher-checkpoint", teacher / "model.safetensors"]
        flags += ["--kd-teacher-img-size", "student"]
    _, training = built(["--data-dir", tmp_path / "data", *flags, "--kd-distill-type", "dccd"])
    assert top1(training.teacher, training.val) == 100
    assert "has its classes in another order than the data set: its answers are reordered" in caplog.text


def test_a_teacher_of_other_classes_is_one_line(tmp_path, fresh_accelerator, caplog):
    for split in ("train", "val"):
        write_folder(tmp_path / "data" / split, "ant", "bee", "cat")
    flags = ["--data-dir", tmp_path / "data", "--kd-distill-type", "logit", "--kd-model-name"]
    shifted = save_knowing(tmp_path / "shifted", ["bee", "cat", "dog"])
    with pytest.raises(UserError, match="other classes than the data set, and in another order: it has dog; .*has ant"):
        built([*flags, f"local-dir:{shifted}"])
    replaced = save_knowing(tmp_path / "replaced", ["ant", "bee", "dog"])
    built([*flags, f"local-dir:{replaced}"])
    assert "has other classes than the data set, by their names: it has dog; the data set has cat" in caplog.text


@pytest.mark.parametrize("start", ["--pretrained", "--initial-checkpoint", "checkpoint's folder"])
def test_a_student_that_starts_from_another_order(tmp_path, start, fresh_accelerator):
    for split in ("train", "val"):
        write_folder(tmp_path / "data" / split, *ALL)
    first = save_knowing(tmp_path / "first", ["cat", "ant", "dog", "bee"])
    flags = {
        "--pretrained": ["--model", f"local-dir:{first}", "--pretrained"],
        "--initial-checkpoint": ["--initial-checkpoint", first / "model.safetensors"],
        "checkpoint's folder": ["--initial-checkpoint", f"local-dir:{first}"],
    }[start]
    _, training = built(["--data-dir", tmp_path / "data", *flags])
    assert top1(training.student.eval(), training.val) == 100
    assert class_names(training.student) is None  # its own are those of the data set, wherever it is exported


def test_a_run_that_is_resumed_keeps_its_numbers(tmp_path, caplog):
    """As one that read the folder alphabetically; a class that was renamed since is refused."""
    for split in ("train", "val"):
        write_folder(tmp_path / split, *PLAIN, colours=PLAIN)
    splits = open_splits(load_recipe(["--data-dir", str(tmp_path)]))
    number_resumed(splits.train, splits.val, sorted(PLAIN), tmp_path)
    for split in (splits.train, splits.val):
        assert split.names == sorted(PLAIN) and split.indices == [0, 2, 1]
    assert "in another order than the run" in caplog.text
    with pytest.raises(UserError, match="no images of class3, which the run in .* learned: .* bring them back"):
        number_resumed(splits.train, splits.val, [*PLAIN, "class3"], tmp_path)
    with pytest.raises(UserError, match="that the run in .* does not have: class1; and none of its classes old"):
        number_resumed(splits.train, splits.val, ["class2", "class10", "old"], tmp_path)
