"""Command lines as timm's documentation and model cards, DeiT and "ResNet strikes back" print them are understood."""

import pytest

from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import assert_refused

RMSPROP = "--opt rmsproptf --opt-eps .001 --sched step --decay-epochs 2.4 --warmup-lr 1e-6 --weight-decay 1e-5"
EMA = "--model-ema --model-ema-decay 0.9999"
RANDOM_ERASING = "--aa rand-m9-mstd0.5 --remode pixel --reprob 0.2"
LINES = {
    "EfficientNet-B2": f"--model efficientnet_b2 -b 128 --epochs 450 --decay-rate .97 {RMSPROP} -j 8 --drop 0.3"
    f" --drop-path 0.2 {EMA} {RANDOM_ERASING} --amp --lr .016",
    "MixNet-XL": f"--model mixnet_xl -b 128 --epochs 450 --decay-rate .969 {RMSPROP} -j 8 --drop 0.3 --drop-path 0.2"
    f" {EMA} {RANDOM_ERASING} --amp --lr .016 --dist-bn reduce",
    "SE-ResNeXt-26-D": "--model seresnext26d_32x4d --lr 0.1 --warmup-epochs 5 --epochs 160 --weight-decay 1e-4"
    " --sched cosine --reprob 0.4 --remode pixel -b 112",
    "EfficientNet-B0": f"--model efficientnet_b0 -b 384 --epochs 450 --decay-rate .97 {RMSPROP} -j 8 --drop 0.2"
    f" --drop-path 0.2 {EMA} {RANDOM_ERASING} --amp --lr .048",
    "EfficientNet-ES": f"--model efficientnet_es -b 128 --epochs 450 --decay-rate .97 {RMSPROP} -j 8 --drop 0.2"
    f" --drop-path 0.2 {RANDOM_ERASING} --amp --lr .064",
    "MobileNetV3-Large": f"--model mobilenetv3_large_100 -b 512 --epochs 600 --decay-rate .973 {RMSPROP} -j 7 --drop 0.2"
    f" --drop-path 0.2 {EMA} {RANDOM_ERASING} --amp --lr .064 --lr-noise 0.42 0.9",
    "ResNeXt-50": "--model resnext50_32x4d --lr 0.6 --warmup-epochs 5 --epochs 240 --weight-decay 1e-4 --sched cosine"
    " --reprob 0.4 --recount 3 --remode pixel --aa rand-m7-mstd0.5-inc1 -b 192 -j 6 --amp --dist-bn reduce",
    "RSB A2": "--model resnet50 --img-size 224 --epochs 300 --opt lamb --lr 5e-3 --weight-decay 0.02 --sched cosine"
    " --warmup-epochs 5 -b 256 --drop-path 0.05 --smoothing 0.0 --mixup 0.1 --cutmix 1.0 --bce-loss"
    " --bce-target-thresh 0.2 --aa rand-m7-mstd0.5-inc1 --aug-repeats 3 --crop-pct 0.95 --amp",
    "DeiT-S": "--model deit_small_patch16_224 --epochs 300 -b 256 --opt adamw --lr 1e-3 --weight-decay .05 --sched cosine"
    " --warmup-epochs 5 --warmup-lr 1e-6 --min-lr 1e-5 --smoothing .1 --mixup .8 --cutmix 1.0"
    " --aa rand-m9-mstd0.5-inc1 --train-interpolation bicubic --reprob .25 --drop-path .1 --aug-repeats 3 --amp",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_it_is_understood(line):
    words = line.split()
    recipe = load_recipe(["/imagenet/", *words])
    assert recipe.data_dir == "/imagenet/" and recipe.lr == float(words[words.index("--lr") + 1])
    assert recipe.aug_repeats == (3 if "--aug-repeats" in words else 0) and recipe.amp == ("--amp" in words)


def test_its_jensen_shannon_loss_is_refused_by_its_name():
    """timm's documentation cuts the flag short; its parser lets it."""
    line = "--model resnet50 -b 64 --lr 0.05 --reprob 0.6 --aug-splits 3 --aa rand-m9-mstd0.5-inc1 --jsd"
    assert_refused(line, "unknown flag --jsd; did you mean --jsd-loss? It is refused: it needs --aug-splits")
    assert_refused(line, "--aug-splits is refused")
