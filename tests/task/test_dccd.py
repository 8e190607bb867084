"""DCCDTask as a user meets it: in a plain loop, beside timm's own task, frozen teacher, checkpoints."""

import copy

import pytest
import timm
import torch
from timm.task import LogitDistillationTask
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.errors import UserError

RESNET = dict(num_classes=10, layers=(1, 1, 1), stem_chs=8)


def resnet(seed=0, channels=(8, 16, 24), **kwargs):
    torch.manual_seed(seed)
    return timm.create_model("resnetv2_18", **{**RESNET, "channels": channels, **kwargs})


def batch(views=2, size=64, count=4, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, views, channels, size, size)
    return torch.randn(shape, generator=generator), torch.randint(0, 10, (count,), generator=generator)


def gradients(task):
    return {n: p.grad.clone() for n, p in task.trainable_module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("weights", "folded"), [({}, True), ({"task_loss_weight": 0.3}, False), ({"distill_loss_weight": 2.5}, True)]
)
def test_without_dccd_terms_it_is_timms_logit_distillation(weights, folded):
    student, teacher = resnet(0), resnet(1, (16, 24, 32))
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    views, target = batch(views=1)
    results = []
    for ours in (True, False):
        model = copy.deepcopy(student)
        if ours:
            task = DCCDTask(model, teacher, nn.CrossEntropyLoss(), views=1, contrast_loss_weight=0,
                            difference_loss_weight=0, temperature=3.0, **weights)  # fmt: skip
        else:
            task = LogitDistillationTask(model, teacher, nn.CrossEntropyLoss(), temperature=3.0, **weights)
        out = task.train()(views[:, 0] if folded or not ours else views, target)
        out["loss"].backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        results.append((out, grads))
    (a, grads_a), (b, grads_b) = results
    for key in ("loss", "task_loss", "kd_loss", "output"):
        torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-6)
    assert grads_a.keys() == grads_b.keys()
    for name, grad in grads_a.items():
        torch.testing.assert_close(grad, grads_b[name], rtol=1e-5, atol=1e-7, msg=name)


def test_plain_loop_trains_and_leaves_the_teacher_alone():
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.05, momentum=0.9)
    before = copy.deepcopy(task.teacher.state_dict())
    buffers = {n: b.clone() for n, b in task.teacher.named_buffers()}
    views, target = batch()
    losses = []
    for _ in range(8):
        task.train()
        out = task(views, target)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(v, before[k]) for k, v in task.teacher.state_dict().items())
    assert all(torch.equal(b, buffers[n]) for n, b in task.teacher.named_buffers())
    assert not any(m.training for m in task.teacher.modules())
    assert not any(p.requires_grad for p in task.teacher.parameters())
    assert not any("teacher" in n for n, _ in task.trainable_module.named_parameters())


def test_loss_is_the_weighted_sum_of_its_parts():
    weights = dict(task_loss_weight=0.7, distill_loss_weight=0.5, contrast_loss_weight=0.3, difference_loss_weight=0.2)
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), **weights).train()
    out = task(*batch())
    parts = ("task_loss", "kd_loss", "contrast_loss", "difference_loss")
    total = sum(w * out[p] for w, p in zip(weights.values(), parts, strict=True))
    torch.testing.assert_close(out["loss"].detach(), total)
    assert out["loss"].requires_grad and not any(out[p].requires_grad for p in parts)
    assert out["output"].shape == (8, 10)


def test_sample_first_and_view_major_batches_are_the_same():
    task = DCCDTask(resnet(0), resnet(1), nn.CrossEntropyLoss()).eval()
    views, target = batch()
    folded = torch.cat([views[:, 0], views[:, 1]])
    a, b = task(views, target), task(folded, torch.cat([target, target]))
    torch.testing.assert_close(a["loss"], b["loss"])
    torch.testing.assert_close(a["output"], b["output"])
    soft = nn.functional.one_hot(target, 10).float()
    c = DCCDTask(task.trainable_module.student, resnet(1), nn.CrossEntropyLoss()).eval()(views, soft)
    torch.testing.assert_close(a["task_loss"], c["task_loss"])


def test_one_forward_of_each_network_and_one_of_each_head():
    student, teacher = (
        timm.create_model("mobilenetv4_conv_small", num_classes=10),
        timm.create_model("efficientvit_b0", num_classes=10),
    )
    calls = []
    for name, model in (("student", student), ("teacher", teacher)):
        model.get_classifier().register_forward_hook(lambda *_, name=name: calls.append(name + " head"))
        stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        stem.register_forward_hook(lambda *_, name=name: calls.append(name + " stem"))
    task = DCCDTask(student, teacher, nn.CrossEntropyLoss(), input_size=(3, 128, 128)).train()
    calls.clear()
    task(*batch(size=128))
    assert sorted(calls) == ["student head", "student stem", "teacher head", "teacher stem"]


def test_teacher_sees_its_own_normalisation_under_mean_and_std():
    """The same pixels, whatever normalisation the loader used for the student."""
    teacher = resnet(1).eval()
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = torch.rand(4, 3, 64, 64)

    def normal(mean, std):
        return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    task = DCCDTask(resnet(0), teacher, nn.CrossEntropyLoss(), input_mean=(0.1, 0.2, 0.3), input_std=(0.7, 0.8, 0.9))
    with torch.no_grad():
        wanted = teacher(normal((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    got = task.teacher(normal((0.1, 0.2, 0.3), (0.7, 0.8, 0.9)))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_grey_student_and_colour_teacher_and_the_other_way_round():
    grey, colour = resnet(0, in_chans=1), resnet(1)
    pixels = torch.rand(4, 1, 64, 64)
    task = DCCDTask(grey, colour, nn.CrossEntropyLoss(), input_size=(1, 64, 64), input_mean=(0.5,), input_std=(0.25,))
    mean, std = (torch.tensor(colour.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        wanted = colour((pixels.expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(task.teacher((pixels - 0.5) / 0.25), wanted, rtol=1e-4, atol=1e-5)
    task.train()((pixels[:, None] - 0.5).expand(-1, 2, -1, -1, -1), torch.arange(4))["loss"].backward()

    grey.pretrained_cfg = dict(grey.pretrained_cfg, mean=(0.4,), std=(0.3,))
    pixels = torch.rand(4, 3, 64, 64)
    task = DCCDTask(colour.requires_grad_(), grey, nn.CrossEntropyLoss(), input_size=(3, 64, 64))
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    with torch.no_grad():
        wanted = grey((luma - 0.4) / 0.3)
    torch.testing.assert_close(task.teacher((pixels - mean) / std), wanted, rtol=1e-3, atol=1e-4)


def test_fixed_size_teacher_gets_its_own_size():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=96, depth=2)
    task = DCCDTask(resnet(0), vit, nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()
    out = task(*batch())
    out["loss"].backward()
    assert out["loss"].isfinite()


def test_two_headed_student_trains_both_heads():
    deit = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, img_size=64, depth=2)
    task = DCCDTask(deit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()
    task(*batch())["loss"].backward()
    assert deit.head.weight.grad.abs().sum() > 0 and deit.head_dist.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("where", ["spatial", "pooled"])
@pytest.mark.parametrize("stages", [None, (-1,), (-1, -2)])
def test_stages_and_places_of_the_contrast(where, stages):
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), contrast_where=where,
                    contrast_stages=stages, input_size=(3, 96, 96)).train()  # fmt: skip
    _, maps = task.trainable_module(batch(size=96)[0][:, 0])
    assert len(maps) == len(stages or (0,))
    if where == "pooled":
        assert all(m.shape[2:] == (1, 1) for m in maps)
    if stages is None and where == "spatial":
        assert maps[0].shape[2] * maps[0].shape[3] >= 16
    task(*batch(size=96))["loss"].backward()


def test_checkpoint_state_is_the_plain_student_and_comes_back():
    def build(seed):
        return DCCDTask(resnet(seed), resnet(9, (16, 24, 32)), nn.CrossEntropyLoss())

    task, other = build(0), build(5)
    task.setup_ema(decay=0.5)
    task.train()(*batch())["loss"].backward()
    torch.optim.SGD(task.trainable_module.parameters(), lr=0.1).step()
    task.update_ema(step=1)
    state = task.get_checkpoint_state() | task.get_checkpoint_state(ema=True)
    assert state["state_dict"].keys() == resnet().state_dict().keys()
    assert set(state["task_state"]) == {"channel_maps"}
    resnet().load_state_dict(state["state_dict_ema"])
    other.load_checkpoint_state(state["state_dict"], state["task_state"])
    for a, b in zip(task.trainable_module.parameters(), other.trainable_module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_timm_optimizer_groups_and_clip_parameters():
    from timm.optim import create_optimizer_v2

    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=3)
    task = DCCDTask(vit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64))
    groups = create_optimizer_v2(
        task.trainable_module, "adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.7
    ).param_groups
    assert len({g["lr_scale"] for g in groups}) == 5  # embedding, 3 blocks, head with channel map
    undecayed = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert id(vit.pos_embed) in undecayed and id(vit.cls_token) in undecayed
    everything, without_head = task.get_clip_parameters(), task.get_clip_parameters(exclude_head=True)
    left_out = {id(p) for p in everything} - {id(p) for p in without_head}
    assert left_out == {id(p) for p in vit.get_classifier().parameters()}


def test_compiled_task_gives_the_same_loss():
    task = DCCDTask(resnet(0), resnet(1), nn.CrossEntropyLoss()).train()
    for module in task.trainable_module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    views, target = batch()
    wanted = task(views, target)["loss"].item()
    eval_model = task.compile(backend="eager")
    assert task(views, target)["loss"].item() == pytest.approx(wanted, rel=1e-5)
    assert task.get_eval_model() is eval_model
    assert task.get_checkpoint_state()["state_dict"].keys() == resnet().state_dict().keys()


@pytest.mark.parametrize(
    ("student", "teacher", "kwargs", "words"),
    [
        (dict(), dict(num_classes=7), {}, "has 7 classes, the student 10"),
        (dict(num_classes=0), dict(num_classes=0), {}, "no classifier"),
        (dict(), dict(), dict(views=1), "needs 2 views"),
        (dict(), dict(), dict(input_size=(3, 6, 6)), "16 positions"),
        (dict(), dict(), dict(contrast_stages=(-9,)), "stages"),
        (dict(in_chans=4), dict(), dict(input_size=(4, 64, 64)), "channels"),
    ],
)
def test_pairs_that_cannot_work_fail_at_construction(student, teacher, kwargs, words):
    with pytest.raises(ValueError, match=words) as caught:
        DCCDTask(resnet(0, **student), resnet(1, **teacher), nn.CrossEntropyLoss(), **kwargs)
    assert "\n" not in str(caught.value)


def test_patch_dropout_is_refused():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=1, patch_drop_rate=0.5)
    with pytest.raises(ValueError, match="patch_drop_rate"):
        DCCDTask(vit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64))


def test_teacher_by_name_must_have_trained_weights():
    name = next(n for n in timm.list_models("test_*") + timm.list_models("res*") if not timm.is_model_pretrained(n))
    with pytest.raises(UserError, match="No pretrained weights exist"):
        DCCDTask(resnet(0), name, nn.CrossEntropyLoss())
