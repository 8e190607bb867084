"""What a student's features and answers are like, beside its teacher's and those of one trained without it."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from dccd_timm.engine.evaluate import Seen, observe
from dccd_timm.models.student import build_student
from dccd_timm.recipe import Recipe
from dccd_timm.report import pictures
from dccd_timm.report.redundancy import channel_correlation, effective_rank, matched_correlation, mean_off_diagonal

_logger = logging.getLogger(__name__)

# Images whose pooled features measure redundancy, and pairs of classes that are named
_FEATURE_IMAGES, _PAIRS = 2048, 8
_BEFORE = "student before training"


def gather(
    recipe: Recipe, folder: Path, networks: dict[str, Any], loader: Any, names: list[str] | None,
    accelerator: Accelerator, control: str,
) -> dict[str, Any]:  # fmt: skip
    """Look at a split with ``networks`` (student, and teacher and control where there are any); draw, and tell.

    Every rank takes part; rank 0 draws into ``folder`` and gets ``redundancy`` and ``classes``, the others nothing.
    The student as it was before its training is built anew from the seed. ``control`` says what that network is.
    """
    set_seed(recipe.seed)
    start = build_student(recipe, networks["student"].num_classes)[0].to(accelerator.device)
    seen = observe({**networks, _BEFORE: start}, loader, accelerator, _FEATURE_IMAGES, features_only=_BEFORE)
    if not accelerator.is_main_process:
        return {}
    if pictures.pyplot() is None:
        _logger.warning("no pictures: pip install 'dccd-timm[plots]' brings matplotlib")
    return {"redundancy": _channels(folder, seen, control), "classes": _answers(folder, seen, names, control)}


def _channels(folder: Path, seen: Seen, control: str) -> dict[str, Any]:
    """Numbers on the channels of every network."""
    order = [k for k in ("teacher", "student", "control", _BEFORE) if k in seen.features]
    features = {k: seen.features[k] for k in order}
    before, after = features[_BEFORE], features["student"]
    own = {"before": channel_correlation(before), "after": channel_correlation(after)}
    panels = {"student with itself": own}
    numbers: dict[str, Any] = {
        k.replace(" ", "_"): {
            "effective_rank": round(effective_rank(values), 3),
            "mean_abs_correlation": round(mean_off_diagonal(channel_correlation(values)), 4),
            "channels": values.shape[1],
        }
        for k, values in features.items()
    }
    if "teacher" in features:
        teacher = features["teacher"]
        shared = {
            "before": matched_correlation(before, teacher),
            "after": matched_correlation(after, teacher),
        }
        panels[pictures.STUDENT_TEACHER] = shared
        numbers["student_teacher"] = {k: round(float(m.diagonal().mean()), 4) for k, m in shared.items()}
    shown = {control if k == "control" else k: v for k, v in features.items()}
    pictures.draw_channels(folder / "channels.png", panels)
    pictures.draw_redundancy(folder / "redundancy.png", shown)
    return numbers


def _answers(folder: Path, seen: Seen, names: list[str] | None, control: str) -> dict[str, Any]:
    """Accuracy class by class, pairs of classes confused, agreement with the teacher; shares in percent."""
    target, answers = seen.target, seen.answers
    classes = target.unique().tolist()
    reference = next((k for k in ("control", "teacher") if k in answers), None)
    rows = []
    for label in classes:
        mine = target == label
        row: dict[str, Any] = {"name": _name(label, names), "images": int(mine.sum())}
        row |= {k: _percent(answer[mine] == label) for k, answer in answers.items()}
        row["change"] = round(row["student"] - (row[reference] if reference else 0), 2)
        rows.append(row)
    found: dict[str, Any] = {
        "reference": control if reference == "control" else reference or "nothing",
        "control": control, "per_class": rows, "confused": _confused(target, answers, names),
        "outcomes": {}, "agreement": None,
    }  # fmt: skip
    if "teacher" in answers:
        student, teacher = answers["student"], answers["teacher"]
        right, known = student == target, teacher == target
        found["agreement"] = _percent(student == teacher)
        found["outcomes"] = {
            "both right": _percent(right & known), "student alone right": _percent(right & ~known),
            "teacher alone right": _percent(~right & known),
            "the same mistake": _percent(~right & (student == teacher)),
            "different mistakes": _percent(~right & ~known & (student != teacher)),
        }  # fmt: skip
    pictures.draw_classes(folder / "classes.png", found)
    return found


def _confused(target: Tensor, answers: dict[str, Tensor], names: list[str] | None) -> list[dict[str, Any]]:
    """The pairs (true class, answer) with the largest share of a class's images, and each network's share."""
    size = Counter(target.tolist())
    counts = {k: Counter(zip(target.tolist(), answer.tolist(), strict=True)) for k, answer in answers.items()}
    wrong = [(n / size[true], true, answer) for (true, answer), n in counts["student"].items() if true != answer]
    wrong.sort(key=lambda row: (-row[0], row[1:]))
    return [
        {"true": _name(true, names), "answer": _name(answer, names)}
        | {k: round(100 * count[true, answer] / size[true], 2) for k, count in counts.items()}
        for _, true, answer in wrong[:_PAIRS]
    ]


def _name(label: int, names: list[str] | None) -> str:
    return names[label] if names and label < len(names) else f"class {label}"


def _percent(flags: Tensor) -> float:
    return round(100 * float(flags.double().mean()), 2)
