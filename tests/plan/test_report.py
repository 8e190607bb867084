"""A plan as people and programs read it."""

import json

from dccd_timm.plan.report import Fit, Loading, Network, Plan, Time

GIB = 2**30


def plan(**changes):
    values = dict(
        device="H100 80GB", ranks=8, precision="bfloat16", student=Network(name="s", parameters=11_690_000, gmacs=1.81),
        teacher=Network(name="t", parameters=21_800_000, gmacs=None), images=1_281_167, classes=1000, batch_size=256,
        views=2, grad_accum_steps=1, updates_per_epoch=625, epochs=100, memory={"weights": GIB, "activations": 7 * GIB},
        fit=Fit(memory=80 * GIB, usable=70 * GIB, fits=True, largest_batch=2000), network_bytes=93 * 2**20,
        flops=5 * 10**12, times=[Time(share=0.5, update_seconds=0.01, hours=25.5)],
        loading=Loading(per_core=400.0, workers=8, hours=11.1, needed=25600.0, needed_workers=64),
        state_bytes=GIB, states=10, export_bytes=90 * 2**20,
    )  # fmt: skip
    return Plan(**values | changes)


def test_the_text_has_every_number():
    text = plan().text()
    for words in (
        "11.690 M parameters, 1.81 GMACs", "2048 images x 2 views: 625 updates and 1280000 images per epoch of 1281167",
        "8.00 GiB at the peak", "8 x H100 80GB, bfloat16", "weights 1.00 GiB, activations 7.00 GiB", "yes: 70.00 GiB",
        "2000 images", "93 MiB sent", "5 TFLOP", "1 d 01 h at 50% (10 ms an update)", "400 images/s", "25600 images/s",
        "64 workers", "1.00 GiB for each of 10 states", "fragmentation",
    ):  # fmt: skip
        assert words in text, words


def test_what_is_not_there_is_left_out():
    loading = Loading(per_core=400.0, workers=8, hours=11.1, needed=None, needed_workers=None)
    assert "controls" not in plan().text() and "of its own: none, logit" in plan(controls=("none", "logit")).text()
    text = plan(ranks=1, teacher=None, fit=None, times=[], loading=loading, device="cpu").text()
    assert (
        "network" not in text and "teacher" not in text and "fits" not in text and "speed of cpu is not known" in text
    )
    assert "1 x cpu" in text


def test_a_step_that_does_not_fit_names_what_would_and_what_it_changes():
    fit = Fit(memory=8 * GIB, usable=6 * GIB, fits=False, largest_batch=150, batch_size=128, grad_accum_steps=2)
    text = plan(fit=fit).text()
    assert "no: 6.00 GiB of 8.00 GiB" in text and "--batch-size 128 --grad-accum-steps 2" in text and "contrast" in text
    fit.batch_size = None
    assert "no smaller batch does" in plan(fit=fit).text()


def test_what_is_not_known_is_said():
    unknown = plan(memory=None, fit=None, flops=None, times=[], state_bytes=None)
    assert "memory     an unknown size" in unknown.text() and "time       not known" in unknown.text()
    assert json.loads(unknown.json())["peak_bytes"] is None


def test_json_has_the_same_in_bytes():
    data = json.loads(plan().json())
    assert data["memory"]["activations"] == 7 * GIB and data["peak_bytes"] == 8 * GIB
    assert data["fit"]["fits"] is True and data["times"][0]["hours"] == 25.5 and data["student"]["gmacs"] == 1.81
