"""DCCDTask as a user meets it: in a plain loop, beside timm's own task, frozen teacher, checkpoints."""

import copy

import pytest
import timm
import torch
from timm.task import LogitDistillationTask
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.errors import UserError
from dccd_timm.task.dccd import Term
from tests.task.small import batch, resnet


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


def test_two_headed_student_trains_both_heads():
    deit = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, img_size=64, depth=2)
    task = DCCDTask(deit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()
    task(*batch())["loss"].backward()
    assert deit.head.weight.grad.abs().sum() > 0 and deit.head_dist.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("student", "teacher", "kwargs", "message"),
    [
        (dict(), dict(num_classes=7), {}, "has 7 classes, the student 10"),
        (dict(num_classes=0), dict(num_classes=0), {}, "no classifier"),
        (dict(), dict(), dict(views=1), "needs 2 views"),
        (dict(), dict(), dict(input_size=(3, 6, 6)), "16 positions"),
        (dict(), dict(), dict(contrast_stages=(-9,)), "stages"),
        (dict(in_chans=4), dict(), dict(input_size=(4, 64, 64)), "channels"),
    ],
)
def test_pairs_that_cannot_work_fail_at_construction(student, teacher, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
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


def test_a_term_of_weight_0_is_left_out():
    weights = dict(distill_loss_weight=0.0, contrast_loss_weight=0.0, difference_loss_weight=0.5)
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), **weights).train()
    assert task.term_weights == {"task_loss": 1.0, "difference_loss": 0.5}
    assert set(task(*batch())) == {"loss", "output", "task_loss", "difference_loss"}


def test_a_term_is_one_row():
    class WithNorm(DCCDTask):
        TERMS = (*DCCDTask.TERMS, Term("norm_loss", lambda task: 0.1, lambda task, a: a.student.square().mean()))

    plain, more = (
        cls(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss()).eval() for cls in (DCCDTask, WithNorm)
    )
    more.trainable_module.load_state_dict(plain.trainable_module.state_dict())
    a, b = plain(*batch()), more(*batch())
    torch.testing.assert_close(b["norm_loss"], a["output"].square().mean())
    torch.testing.assert_close(b["loss"], a["loss"] + 0.1 * b["norm_loss"])
    assert more.term_weights["norm_loss"] == 0.1


def test_the_batches_of_other_loaders():
    """As [B, V, C, H, W], as a list of views, or view-major: one loss; a plain batch and other shapes are refused."""
    images, target = batch()

    def task():
        return DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()

    wanted = task()(images, target)["loss"]
    for views in (list(images.unbind(1)), tuple(images.unbind(1))):
        torch.testing.assert_close(task()(views, target)["loss"], wanted)
    torch.testing.assert_close(task()(images.transpose(0, 1).flatten(0, 1), target.repeat(2))["loss"], wanted)
    for views, labels in ((images[:, 0], torch.arange(4)), (images[:, :1], target), (images[:3, 0], target[:3])):
        with pytest.raises(ValueError, match=r"\[B, 2, C, H, W\]"):
            task()(views, labels)
    used = task()
    used(images, target)
    with pytest.raises(ValueError, match="the 2 parts of target .* differ, so they are no views"):
        used(images[:, 0], torch.arange(4))  # a plain batch after one of views


def test_a_teacher_without_a_head_leaves_task_loss_and_contrast():
    whole, headless = resnet(1), copy.deepcopy(resnet(1))
    headless.reset_classifier(0)
    options = dict(input_size=(3, 64, 64), distill_loss_weight=0.0, difference_loss_weight=0.0)
    torch.manual_seed(0)
    known = DCCDTask(resnet(0), whole, nn.CrossEntropyLoss(), **options).train()(*batch())
    torch.manual_seed(0)
    task = DCCDTask(resnet(0), headless, nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()
    found = task(*batch())
    assert task.term_weights == {"task_loss": 1.0, "contrast_loss": 5.0}
    assert found.keys() == known.keys() and torch.equal(found["loss"], known["loss"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(distill_loss_weight=1.0), "has no head, so KD has no logits of it"),
        (dict(contrast_loss_weight=0.0), "nothing is left"),
    ],
)
def test_what_needs_the_head_of_a_teacher_without_one(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DCCDTask(resnet(0), resnet(1, num_classes=0), nn.CrossEntropyLoss(), **kwargs)


def test_a_student_without_a_head_learns_from_maps_and_pooled_features_alone():
    student, teacher = resnet(0, num_classes=0), resnet(1, channels=(8, 16, 40), num_classes=0)
    task = DCCDTask(student, teacher, nn.CrossEntropyLoss(), input_size=(3, 64, 64), task_loss_weight=0.0).train()
    assert task.term_weights == {"contrast_loss": 5.0} and not task.classifies
    found = task(*batch())
    assert found.keys() == {"loss", "output", "contrast_loss"} and found["output"].shape == (8, 24)
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.trainable_module.parameters())
    widths = [(m.in_channels, m.out_channels) for m in task.trainable_module.channel_maps]
    assert widths == [(24, 40), (24, 40)]  # the last map, whatever its size, and the pooled features
    assert len(task.get_task_state()["channel_maps"]) == 2
    images = batch()[0][:, 0]
    student.eval()
    pooled = task.contrast(
        task.trainable_module.channel_maps[1](student(images)[:, :, None, None]),
        teacher(task.teacher.adapt(images))[:, :, None, None],
    )
    maps = task.contrast(
        task.trainable_module.channel_maps[0](student.forward_intermediates(images)[1][-1]),
        teacher.forward_intermediates(task.teacher.adapt(images))[1][-1],
    )
    torch.testing.assert_close(task.eval().contrast_of(images), (maps + pooled) / 2)


def test_a_teacher_with_a_head_or_without_pooling_teaches_no_student_without_a_head():
    with pytest.raises(ValueError, match="has a head and the student none"):
        DCCDTask(resnet(0, num_classes=0), resnet(1), nn.CrossEntropyLoss(), task_loss_weight=0.0)
    encoder = timm.create_model("qwen3_vit_88m_enc", img_size=64, depth=2)
    with pytest.raises(ValueError, match="does not pool its features"):
        DCCDTask(
            resnet(0, num_classes=0),
            encoder,
            nn.CrossEntropyLoss(),
            task_loss_weight=0.0,
            teacher_img_size="student",
            input_size=(3, 64, 64),
        )
