"""Every flag of timm's train.py is honoured, taken over or refused; the table is timm's own parser, printed."""

import csv
import dataclasses
from pathlib import Path

import pytest
import yaml

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.load import GRAMMAR
from dccd_timm.recipe.timm_flags import REFUSED, TAKEN_OVER

TABLE = list(csv.DictReader(Path(__file__).with_name("timm_train_flags.csv").open()))
# What a value other than timm's default looks like, where the type does not say it.
EXAMPLES = {
    "interpolation": "bilinear", "train_interpolation": "bicubic",
    "kd_distill_type": "feature", "kd_token_distill_type": "hard", "clip_mode": "agc", "dist_bn": "broadcast",
    "lr_base_scale": "sqrt", "remode": "const", "mixup_mode": "elem", "train_crop_mode": "rkrc", "eval_metric": "loss",
    "amp_dtype": "bfloat16", "input_size": "3 64 64", "cutmix_minmax": "0.2 0.8", "scale": "0.5 0.9",
    "ratio": "0.9 1.1", "mean": "0.5 0.5 0.5", "std": "0.2 0.2 0.2", "kd_loss_type": "kl",
    "model_ema_decay": "0.5", "start_epoch": "3",
}  # fmt: skip
# Flags that only mean something beside another one.
NEEDS = {
    "kd_": "--kd-model-name resnet18", "distill_loss_weight": "--kd-model-name resnet18",
    "task_loss_weight": "--kd-model-name resnet18", "kd_student_feature_dim": "--kd-distill-type feature",
    "kd_teacher_feature_dim": "--kd-distill-type feature", "kd_token_distill_type": "--kd-distill-type token",
    "mixup_": "--mixup 0.2", "bce_sum": "--bce-loss", "bce_target": "--bce-loss", "bce_pos": "--bce-loss",
    "model_ema_": "--model-ema", "remode": "--reprob 0.5", "recount": "--reprob 0.5",
    "resplit": "--reprob 0.5 --dccd-views 2", "clip_mode": "--clip-grad 1", "layer_decay_": "--layer-decay 0.7",
    "amp_dtype": "--amp", "torchcompile_mode": "--torchcompile", "no_resume_opt": "--resume x",
    "wandb_": "--log-wandb", "split_bn": "--dccd-views 2",
}  # fmt: skip


def timm_default(row):
    default = row["default"]
    if row["type"] in ("_StoreTrueAction",):
        return False
    if default == "":
        return None
    return float(default) if row["type"] == "float" and row["nargs"] == "" else yaml.safe_load(default)


def test_the_table_is_complete():
    assert len(TABLE) == 172
    assert len({row["dest"] for row in TABLE}) == 172


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["dest"])
def test_each_flag_has_one_place_and_timms_default(row):
    name = row["dest"]
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    foreign = {f.name: f for f in (*TAKEN_OVER, *REFUSED)}
    places = (name in fields) + (name in foreign) + (name in ("data", "config"))
    assert places == 1
    if name in fields:
        spec = fields[name]
        ours = spec.default if spec.default is not dataclasses.MISSING else spec.default_factory()
        wanted = timm_default(row)
        if isinstance(wanted, list):
            wanted = tuple(wanted) if ours else ()
        unset = (None, "", (), {}, False, "{}")
        same = ours == wanted or (ours in unset and wanted in unset) or (name == "output" and wanted is None)
        assert same or ours == pytest.approx(wanted), f"timm's default is {wanted!r}, ours {ours!r}"
    if name in foreign:
        assert foreign[name].answer and "\n" not in foreign[name].answer


@pytest.mark.parametrize("row", [r for r in TABLE if r["dest"] in GRAMMAR.fields], ids=lambda row: row["dest"])
def test_each_honoured_flag_is_read_in_every_spelling(row):
    name, kind = row["dest"], row["type"]
    needs = [w for start, flags in NEEDS.items() if name.startswith(start) for w in flags.split()]
    for flag in [f for f in row["flag"].split() if f.startswith("-")]:
        if kind == "_StoreTrueAction":
            words = [flag]
        elif kind == "ParseKwargs":
            words = [flag, "a=1", "b=(1, 2)", "c=text"]
        else:
            words = [flag, *EXAMPLES.get(name, "5" if kind == "int" else "0.25" if kind == "float" else "some").split()]
        recipe = load_recipe([*needs, *words])
        value = getattr(recipe, name)
        if kind == "_StoreTrueAction":
            assert value is True
        elif kind == "ParseKwargs":
            assert value == {"a": 1, "b": (1, 2), "c": "text"}
        elif isinstance(value, tuple):
            assert [str(v) for v in value] == words[1:]
        else:
            assert str(value).removesuffix(".0") == words[1]


@pytest.mark.parametrize("foreign", REFUSED, ids=lambda f: f.name)
def test_each_refused_flag_says_why(foreign):
    value = [] if foreign.takes == 0 else ["0.125"]
    with pytest.raises(UserError, match="is refused") as caught:
        load_recipe([foreign.flag, *value])
    assert foreign.answer in str(caught.value) and foreign.flag in str(caught.value)


@pytest.mark.parametrize("foreign", TAKEN_OVER, ids=lambda f: f.name)
def test_each_flag_taken_over_is_accepted_with_a_notice(foreign, caplog):
    load_recipe([foreign.flag, *([] if foreign.takes == 0 else ["7"])])
    assert [foreign.answer in r.message and foreign.flag in r.message for r in caplog.records] == [True]


def test_timms_own_args_yaml_loads_and_means_the_same(tmp_path):
    settings = {row["dest"]: timm_default(row) for row in TABLE}
    settings |= {
        "model": "resnet18",
        "lr": 0.3,
        "opt": "lamb",
        "mixup": 0.1,
        "naflex_train_seq_lens": [128, 256, 576, 784, 1024],
    }
    path = tmp_path / "args.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert load_recipe(["-c", str(path)]) == load_recipe(
        ["--model", "resnet18", "--lr", "0.3", "--opt", "lamb", "--mixup", "0.1"]
    )
