"""What a DCCD step trains: the student and the learned maps from its channels to the teacher's."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from timm.models import group_parameters
from torch import Tensor, nn

from dccd_timm.losses.contrast import pool_to
from dccd_timm.models.taps import tapped_forward


class TappedStudent(nn.Module):
    """Student with 1x1 channel maps; one module and one forward, which is what DDP, compile and EMA need.

    Args:
        student: timm model.
        stages: stages to tap, ascending indices into its feature_info.
        grids: for each stage the height and width to which its map is pooled; None leaves it as it is.
        maps: for each stage what its map goes through, thrown away after the training.
        embedding: what the pooled features of a student without a head go through, if they are compared too.
    """

    def __init__(
        self,
        student: nn.Module,
        stages: Sequence[int] = (),
        grids: Sequence[tuple[int, int] | None] = (),
        maps: Sequence[nn.Module] = (),
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.stages, self.grids = list(stages), list(grids)
        self.channel_maps = nn.ModuleList([*maps, embedding] if embedding is not None else maps)

    def forward(self, images: Float[Tensor, "N C H W"]) -> tuple[Float[Tensor, "N K"], list[Tensor]]:
        """Logits and mapped feature maps of images; after these the mapped pooled features, as a map of 1x1."""
        logits, maps = tapped_forward(self.student, images, self.stages)
        if len(self.channel_maps) > len(self.stages):
            maps.append(logits[:, :, None, None])
        # pooling and a 1x1 map commute; pooling first is the cheaper order
        grids = [*self.grids, *[None] * (len(maps) - len(self.grids))]
        stages = zip(maps, grids, self.channel_maps, strict=True)
        return logits, [project(f if grid is None else pool_to(f, grid)) for f, grid, project in stages]

    def no_weight_decay(self) -> set[str]:
        """The student's own list, for timm's optimizer factory."""
        names: Callable[[], set[str]] | None = getattr(self.student, "no_weight_decay", None)
        return {f"student.{name}" for name in names()} if names else set()

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int] | dict[str, str]:
        """Layer of each parameter, for layer decay: the student's own layers; channel maps belong to the last."""
        group_matcher: Callable[..., object] | None = getattr(self.student, "group_matcher", None)
        if group_matcher is None:
            return {}
        layers: dict[str, int] = group_parameters(self.student, group_matcher(coarse=coarse), reverse=True)
        last = max(layers.values(), default=0)
        return lambda name: layers.get(name.removeprefix("student."), last) if name.startswith("student.") else last


def channel_map(student: int, teacher: int) -> nn.Module:
    """A learned 1x1 map from the student's channels to the teacher's; equal numbers need none."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, kernel_size=1, bias=False)
