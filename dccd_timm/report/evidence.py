"""A student's features and answers beside those of its teacher, its control and itself before training."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import Evaluation, Evaluator, evaluate_together, has_features
from dccd_timm.models.student import build_student
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Recipe
from dccd_timm.report.pictures import STUDENT, STUDENT_TEACHER, Evidence
from dccd_timm.report.redundancy import channel_correlation, effective_rank, matched_correlation, mean_off_diagonal
from dccd_timm.report.schema import Channels, Classes, ClassReport, ConfusedPair, Matched, Redundancy, Report

_logger = logging.getLogger(__name__)

# Images whose pooled features measure redundancy, and the number of confused pairs in a report
FEATURE_IMAGES, _PAIRS = 2048, 8
_BEFORE = "student before training"
_ORDER = ("teacher", "student", "control", _BEFORE)


def evaluate_networks(
    recipe: Recipe,
    networks: Mapping[str, nn.Module],
    loader: Iterable[Batch],
    accelerator: Accelerator,
    create_evaluator: Callable[[], Evaluator],
) -> Evaluation:
    """Evaluate ``networks`` (student, and teacher and control where there are any) in one pass over a split.

    The student before its training, built again from the seed, gives features too, and a teacher without a head
    nothing else. Every rank takes part.
    """
    if accelerator.is_main_process:
        for name in (name for name, network in networks.items() if not has_features(network)):
            _logger.warning("the %s has no forward_features and forward_head: no channels of it in the report", name)
    answering = {name: network for name, network in networks.items() if as_timm(network).num_classes}
    silent = {name: network for name, network in networks.items() if name not in answering}
    set_seed(recipe.seed)
    start = build_student(recipe, as_timm(networks["student"]).num_classes)[0].to(accelerator.device)
    evaluation = evaluate_together(
        answering,
        loader,
        accelerator,
        create_evaluator,
        recipe.channels_last,
        feature_images=FEATURE_IMAGES,
        features_only={_BEFORE: start, **silent},
    )
    assert evaluation is not None  # no signal stops it
    return evaluation


def gather_evidence(
    report: Report, summaries: dict[str, Path], evaluation: Evaluation | None, names: list[str] | None
) -> Evidence:
    """Fill in the redundancy and the classes of ``report``; returns them with what else its pictures show.

    ``summaries`` are summary.csv files by label, that of the run itself first; ``names`` those of the classes;
    ``evaluation`` is None without validation.
    """
    if evaluation is None:
        return Evidence(report, summaries)
    features = {name: evaluation.features[name] for name in _ORDER if name in evaluation.features}
    known = "student" in features  # this rank may have read no image, and a user's own network gives no features
    correlations = correlate(features) if known else {}
    report.redundancy = measure_redundancy(features, correlations) if known else None
    if evaluation.answers:
        report.classes = compare_answers(evaluation, names, (report.control and report.control.label) or "")
    return Evidence(report, summaries, features if known else {}, correlations)


def correlate(features: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Correlations of the channels of the student before training, the control and the student: with each other and
    with the teacher's."""
    students = {name: features[name] for name in (_BEFORE, "control", "student") if name in features}
    found = {STUDENT: {name: channel_correlation(values) for name, values in students.items()}}
    if "teacher" in features:
        teacher = features["teacher"]
        found[STUDENT_TEACHER] = {name: matched_correlation(values, teacher) for name, values in students.items()}
    return found


def measure_redundancy(features: Mapping[str, Tensor], correlations: dict[str, dict[str, Tensor]]) -> Redundancy:
    """Redundancy of each network's pooled features [N, C], and how well the student's contain the teacher's."""
    channels = {
        name.replace(" ", "_"): Channels(
            effective_rank=round(effective_rank(values), 3),
            mean_abs_correlation=round(mean_off_diagonal(channel_correlation(values)), 4),
            channels=values.shape[1],
        )
        for name, values in features.items()
    }
    redundancy = Redundancy(
        student=channels["student"],
        student_before_training=channels["student_before_training"],
        teacher=channels.get("teacher"),
        control=channels.get("control"),
    )
    if matched := correlations.get(STUDENT_TEACHER):
        means = {network: round(float(matrix.diagonal().mean()), 4) for network, matrix in matched.items()}
        redundancy.student_teacher = Matched(
            before=means[_BEFORE], after=means["student"], control=means.get("control")
        )
    return redundancy


def compare_answers(evaluation: Evaluation, names: list[str] | None, control: str) -> Classes:
    """Accuracy class by class, pairs of classes confused, agreement with the teacher; shares in percent.

    ``control`` is the label of that network.
    """
    target, answers = evaluation.target, evaluation.answers
    reference = next((name for name in ("control", "teacher") if name in answers), None)
    rows = []
    for label in target.unique().tolist():
        of_class = target == label
        accuracy = {name: _percent(answer[of_class] == label) for name, answer in answers.items()}
        change = round(accuracy["student"] - (accuracy[reference] if reference else 0), 2)
        rows.append(ClassReport(name=_name(label, names), images=int(of_class.sum()), **accuracy, change=change))
    classes = Classes(
        reference=control if reference == "control" else reference or "nothing",
        control=control,
        per_class=rows,
        confused=_confused(target, answers, names),
    )
    if "teacher" in answers:
        student, teacher = answers["student"], answers["teacher"]
        right, known = student == target, teacher == target
        classes.agreement = round(evaluation.agreement("student", "teacher"), 2)
        classes.outcomes = {
            "both right": _percent(right & known),
            "student alone right": _percent(right & ~known),
            "teacher alone right": _percent(~right & known),
            "the same mistake": _percent(~right & (student == teacher)),
            "different mistakes": _percent(~right & ~known & (student != teacher)),
        }
    return classes


def _confused(target: Tensor, answers: dict[str, Tensor], names: list[str] | None) -> list[ConfusedPair]:
    """The pairs (true class, answer) with the largest share of a class's images, and each network's share."""
    size = Counter(target.tolist())
    counts = {k: Counter(zip(target.tolist(), answer.tolist(), strict=True)) for k, answer in answers.items()}
    wrong = [(n / size[true], true, answer) for (true, answer), n in counts["student"].items() if true != answer]
    wrong.sort(key=lambda row: (-row[0], row[1:]))
    return [
        ConfusedPair(
            true=_name(true, names),
            answer=_name(answer, names),
            **{name: round(100 * count[true, answer] / size[true], 2) for name, count in counts.items()},
        )
        for _, true, answer in wrong[:_PAIRS]
    ]


def _name(label: int, names: list[str] | None) -> str:
    return names[label] if names and label < len(names) else f"class {label}"


def _percent(flags: Tensor) -> float:
    return round(100 * float(flags.double().mean()), 2)
