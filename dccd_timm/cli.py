"""The programs of training and judging, dccd-train and dccd-validate."""

from collections.abc import Sequence

from dccd_timm.launch.guard import guarded
from dccd_timm.recipe import load_recipe, load_validation


def train_main(argv: Sequence[str] | None = None) -> None:
    """Run train.py."""

    def story(arguments: Sequence[str]) -> None:
        recipe = load_recipe(arguments)
        from dccd_timm.run.train import train  # torch, timm and datasets load only once the flags are right

        train(recipe)

    guarded(story, argv)


def validate_main(argv: Sequence[str] | None = None) -> None:
    """Run validate.py."""

    def story(arguments: Sequence[str]) -> None:
        options = load_validation(arguments)
        from dccd_timm.run.validate import validate

        validate(options)

    guarded(story, argv)
