"""One student's training: what is wrong is found before anything is written. Whole trainings are in test_train.py."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.run.train import train
from tests.conftest import write_folders


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-b", "100"], "one update takes 100 images .* the training split has 12: lower --batch-size"),
        (["--num-classes", "2"], "the data set has 3 classes, the student 2: raise --num-classes"),
        (["--kd-model-name", "test_resnet"], "teacher test_resnet has 1000 classes, the student 3"),
    ],
)
def test_a_mistake_leaves_no_folder(flags, message, tmp_path, fresh_accelerator, monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: None)  # no weights without a network
    write_folders(tmp_path / "images", per_class=(4, 2))
    words = ["--data-dir", tmp_path / "images", "--model", "test_resnet", "--img-size", "32", "-b", "4", "-j", "0"]
    words += ["--device", "cpu", "--epochs", "1", "--warmup-epochs", "0", "--output", tmp_path / "out", *flags]
    recipe = load_recipe([str(word) for word in words])
    with pytest.raises(UserError, match=message):
        train(recipe, HubPublisher(recipe))
    assert not (tmp_path / "out").exists()
