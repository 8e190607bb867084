"""Real processes: metrics, answers and agreement are those of one process, each image counted once."""

import json

import pytest

from tests.conftest import run_python

# 11 images: two ranks get 6 and 5, three ranks 4, 4 and 3, in batches of 2 whose last one may be short or missing.
SCRIPT = """
import json, sys, timm, torch
from accelerate import Accelerator
from timm.task import ClassificationEvaluator
from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import evaluate_together
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
networks = {name: timm.create_model("test_resnet", num_classes=4) for name in ("student", "teacher")}
images, target = torch.randn(11, 1, 3, 32, 32), torch.arange(11) % 4
own = slice(accelerator.process_index, None, accelerator.num_processes)
batches = [Batch(*pair) for pair in zip(images[own].split(2), target[own].split(2))]
found = evaluate_together(networks, batches, accelerator, ClassificationEvaluator, feature_images=3)
stopped = evaluate_together(
    networks, batches, accelerator, ClassificationEvaluator, stopping=lambda: accelerator.is_main_process
)
# only the last rank can read images, and each rank has met a broken one, one of them the same
rank, world = accelerator.process_index, accelerator.num_processes
some = batches if rank == world - 1 else []
names = [("broken on all", 1), (f"broken on {rank}", 2)]
partly = evaluate_together(networks, [Batch.empty(names), *some], accelerator, ClassificationEvaluator)
if accelerator.is_main_process:
    answers = sorted(zip(found.target.tolist(), *(found.answers[name].tolist() for name in networks)))
    print(json.dumps([accelerator.num_processes, found.metrics, found.agreement("student", "teacher"), answers,
                      len(found.features["student"]), stopped is None, partly.counts]))
accelerator.end_training()
"""


def evaluated(processes):
    done = run_python(["-c", SCRIPT], processes)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("processes", [2, 3])
def test_the_numbers_do_not_depend_on_the_number_of_processes(processes):
    (_, metrics, agreement, answers, _, stopped, counts), found = evaluated(1), evaluated(processes)
    assert found[0] == processes and stopped and found[5]
    for name, values in metrics.items():
        assert found[1][name] == pytest.approx(values, rel=1e-6)
    assert (found[2], found[3]) == (agreement, answers) and len(answers) == 11
    assert counts == {"images": 11, "skipped": 3}
    assert found[6] == {"images": 5 if processes == 2 else 3, "skipped": 1 + 2 * processes}
    assert found[4] == 3  # features are those of the first images of rank 0


PROBE = """
import json, torch
from accelerate import Accelerator
from dccd_timm.engine.probe import train_probe
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
features, target = torch.randn(23, 4) * torch.tensor([1, 5, 0.1, 2]), torch.arange(23) % 3
own = slice(accelerator.process_index, None, accelerator.num_processes)
weight, bias = train_probe(features[own], target[own], 3, 40, accelerator)
if accelerator.is_main_process:
    print(json.dumps([accelerator.num_processes, weight.flatten().tolist() + bias.tolist()]))
accelerator.end_training()
"""


def test_a_linear_head_is_that_of_all_processes_images():
    found = []
    for processes in (1, 2):
        done = run_python(["-c", PROBE], processes)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        assert found[-1][0] == processes
    assert found[1][1] == pytest.approx(
        found[0][1], rel=2e-3, abs=1e-3
    )  # float32 sums in another order, 40 steps later
