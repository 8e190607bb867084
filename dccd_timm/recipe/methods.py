"""The methods of --kd-distill-type, declared once: what each is called, what its loss is made of, what it needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to train a student.

    Args:
        name: as --kd-distill-type takes it.
        label: as cards and tables show it, after "distilled by".
        terms: parts of its loss, by the names that the task gives them in its output.
        needs: what it reads of a teacher: ``logits``, ``features`` (the pooled ones), ``maps`` (before pooling).
    """

    name: str
    label: str
    terms: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def distills(self) -> bool:
        """Whether it has a teacher."""
        return bool(self.needs)

    @property
    def student_label(self) -> str:
        """What a control trained by it is called beside another student."""
        return f"student by {self.label}" if self.distills else "student without distillation"


METHODS = {
    method.name: method
    for method in (
        Method("none", "no distillation", ("task_loss",)),
        Method("logit", "KD on logits", ("task_loss", "kd_loss"), ("logits",)),
        Method("feature", "KD on features", ("task_loss", "kd_loss"), ("features",)),
        Method("token", "KD by token", ("task_loss", "distill_loss"), ("logits",)),
        Method("dccd", "DCCD", ("task_loss", "kd_loss", "contrast_loss", "difference_loss"), ("logits", "maps")),
    )
}
