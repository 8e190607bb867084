"""Every family of timm, by one small network each: built as a student, counted, trained for a step, exported.

It takes minutes and is not part of a usual run: ``python -m pytest -m families``.
"""

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.task import ClassificationTask

from dccd_timm.batch import Batch
from dccd_timm.engine.optim import build_optimizer
from dccd_timm.engine.step import training_step
from dccd_timm.models.cost import gmacs
from dccd_timm.models.student import build_student
from dccd_timm.recipe import load_recipe
from dccd_timm.run.export import export

pytestmark = [pytest.mark.slow, pytest.mark.families]

# At 64 pixels
NAMES = [
    "test_byobnet", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "test_convnext",
    "cpubone_nano", "csatv2", "cs3darknet_focus_s", "cspnext_tiny", "davit_tiny", "deit_tiny_patch16_224",
    "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small", "efficientformerv2_s0", "test_efficientnet",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0",
    "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0",
    "hiera_tiny_224", "sam2_hiera_tiny", "hrnet_w18_small", "iformer_t", "inception_next_atto", "lcnetv2_small",
    "levit_128s", "lowformer_b0", "test_mambaout", "test_coatnet", "poolformerv2_s12", "gmlp_ti16_224",
    "mobilenetv3_small_050", "mobilenetv5_base", "mobilevit_xxs", "mvitv2_tiny", "nasnetalarge", "nest_tiny",
    "nextvit_small", "test_nfnet", "pit_ti_224", "pnasnet5large", "pvt_v2_b0", "rdnet_tiny", "regnetx_002",
    "repghostnet_050", "repvit_m0_9", "res2next50", "resnest14d", "test_resnet", "resnetv2_18", "rexnet_100",
    "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050",
    "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256", "swinv2_cr_tiny_224",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny",
    "test_vit", "vit_tiny_r_s16_p8_224", "test_vit_relpos", "vitamin_small_224", "volo_d1_224",
    "ese_vovnet19b_slim_dw", "legacy_xception", "xception41p", "xcit_nano_12_p16_224",
]  # fmt: skip

# Those that need other images, or are too large at their own depth
OTHERS = {
    "beit_base_patch16_224": ["--img-size", 64, "--model-kwargs", "depth=2"],
    "halonet_h1": ["--img-size", 256],
    "crossvit_tiny_240": ["--img-size", 240],
    "deepseek_vit_412m": ["--img-size", 224, "--model-kwargs", "depth=2"],
    "efficientformer_l1": ["--img-size", 224],
    "gemma4_vit_167m": ["--img-size", 64, "--model-kwargs", "depth=2"],
    "inception_resnet_v2": ["--img-size", 96],
    "inception_v3": ["--img-size", 96],
    "inception_v4": ["--img-size", 96],
    "naflexvit_base_patch16_parfac_gap": ["--img-size", 64, "--model-kwargs", "depth=2"],
    "qwen3_vit_88m": ["--img-size", 64, "--model-kwargs", "depth=4"],
    "samvit_base_patch16_224": ["--img-size", 64, "--model-kwargs", "depth=4"],
}


def families(names):
    """The modules that have the networks."""
    return {timm.model_entrypoint(name).__module__ for name in names}


def test_every_family_is_there():
    ours = {module for module in families(timm.list_models()) if not module.startswith("timm.")}
    assert families([*NAMES, *OTHERS]) == families(timm.list_models()) - ours


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_a_network_of_the_family(name, tmp_path, fresh_accelerator):
    flags = ["--model", name, "--lr", 0.01, "--device", "cpu", *OTHERS.get(name, ["--img-size", 64])]
    recipe = load_recipe([str(word) for word in flags])
    torch.manual_seed(0)
    student, config = build_student(recipe, 3)
    assert (gmacs(student, config["input_size"]) or 0) > 0
    task, accelerator = ClassificationTask(student, device=torch.device("cpu"), verbose=False), Accelerator(cpu=True)
    task.trainable_module, optimizer = accelerator.prepare(task.trainable_module, build_optimizer(task, recipe, 2))
    before = [parameter.detach().clone() for parameter in student.parameters()]
    batch = Batch(torch.randn(2, 1, *config["input_size"]), torch.tensor([0, 2]))
    result, changed = training_step(task.train(), batch, optimizer, recipe, accelerator, lambda: True)
    assert changed and result["loss"].isfinite()
    assert any(not torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True))
    export(student, tmp_path / "student", config, ["a", "b", "c"], {})
