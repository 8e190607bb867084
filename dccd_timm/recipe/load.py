"""Recipe file and flags -> one checked Recipe; every mistake is reported, all at once, before anything is built."""

import logging
from collections.abc import Sequence
from pathlib import Path

import yaml

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe.data import local_folder, reader_of
from dccd_timm.recipe.option import Values, option_of
from dccd_timm.recipe.parse import Grammar, Program, as_one_error
from dccd_timm.recipe.recipe import Recipe
from dccd_timm.recipe.rules import contradictions, ineffective, resolve
from dccd_timm.recipe.timm_flags import REFUSED, TAKEN_OVER

_logger = logging.getLogger(__name__)

GRAMMAR = Grammar(
    Recipe,
    TAKEN_OVER,
    REFUSED,
    Program(
        prog="dccd-timm train",
        description="Train a timm student, alone or distilled from a teacher. Options are timm's; --dccd-* are ours.",
        usage="%(prog)s [-c RECIPE.yaml] [--option value ...]",
        positional="data",
        examples=(
            "dccd-timm train -c recipes/quickstart.yaml --experiment first",
            "dccd-timm train --data-dir flowers --model resnet18 --pretrained \\\n"
            "    --kd-model-name local-dir:teacher --kd-distill-type dccd --epochs 100",
            "accelerate launch --multi_gpu --num_processes 8 -m dccd_timm train \\\n"
            "    -c recipes/imagenet/resnet34-resnet18.yaml --amp",
        ),
        takes_recipe=True,
    ),
)
# Written into args.yaml for its reader; facts about a run, not settings.
_FACTS = ("versions", "config", "changed")

# What a recipe says of its own data set, and the splits, which another one may have too.
_OF_A_DATA_SET = (
    "dataset", "dataset_config", "dataset_revision", "dataset_download", "input_key", "target_key", "class_map",
    "train_num_samples", "val_num_samples", "num_classes",
)  # fmt: skip
_SPLITS = ("train_split", "val_split")


def load_recipe(argv: Sequence[str]) -> Recipe:
    """Parse ``argv`` (with ``-c FILE`` for a recipe) into a Recipe; the command line beats the file.

    Without a file, ``--resume FOLDER`` takes the settings in the folder's args.yaml.

    Raises:
        UserError: for unknown flags and keys, wrong types, values out of range, contradictions, settings without
            effect.
    """
    errors: list[str] = []
    texts = GRAMMAR.parse(argv, errors)
    path, data = texts.pop("config"), texts.pop("data")
    if data and not errors:
        _logger.warning("a positional data folder is deprecated in timm: read as --data-dir %s", data)
        if texts.setdefault("data_dir", data) != data:
            errors.append(f"{data} and --data-dir {texts['data_dir']} name two data folders: give one")
    run = None if path or texts.get("resume") in (None, "", "auto") else Path(texts["resume"])
    from_file = _settings_of(run, errors) if run else _read_recipe(Path(path), errors) if path else {}
    given = GRAMMAR.typed(texts, "--", errors)
    if "data_dir" in given and not given["data_dir"] and not from_file.get("data_dir"):
        errors.append("--data-dir is empty, and there is none to unset: name a folder")
    if errors:
        raise as_one_error(errors)
    from_file = _without_its_data_set(from_file, given)
    # A recipe may set options of a method that the command line switches off; what has no effect beside the other
    # settings of its own file or command line is a mistake.
    errors += ineffective(Recipe, from_file, from_file) + ineffective(Recipe, from_file | given, given)
    for line in ineffective(Recipe, from_file | given, given, refused=False):
        _logger.warning("%s", line)
    recipe = Recipe(**resolve(from_file | given))
    errors += contradictions(recipe)
    if errors:
        raise as_one_error(errors)
    return recipe


def _without_its_data_set(from_file: Values, given: Values) -> Values:
    """A recipe's settings without its data set where --data-dir, alone on the command line, takes its place."""
    dataset = from_file.get("dataset")
    if not given.get("data_dir") or "dataset" in given or not dataset:
        return from_file
    root = Path(given["data_dir"])
    if reader_of(dataset) in ("torch", "tfds", "wds"):
        _logger.info("--data-dir %s is the folder of the recipe's data set %s", root, dataset)
        return from_file
    if reader_of(dataset) == "folder" or local_folder(dataset, None) != local_folder(dataset, given["data_dir"]):
        return from_file
    gone = [name for name in _OF_A_DATA_SET if name in from_file]
    gone += [name for name in _SPLITS if from_file.get(name) and not (root / from_file[name]).is_dir()]
    _logger.info("--data-dir %s takes the place of the recipe's data set: without its %s", root, ", ".join(gone))
    return {name: value for name, value in from_file.items() if name not in gone}


def _read_recipe(path: Path, errors: list[str]) -> Values:
    """Typed values of a recipe."""
    return GRAMMAR.typed(_read_yaml(path, errors), f"{path}: ", errors)


def _settings_of(run: Path, errors: list[str]) -> Values:
    """What a run was started with, but for what is about one start of the program; nothing without its args.yaml."""
    path = run / "args.yaml"
    known = _read_recipe(path, errors) if path.is_file() else {}
    return {name: value for name, value in known.items() if option_of(GRAMMAR.fields[name]).resume != "once"}


def _read_yaml(path: Path, errors: list[str]) -> Values:
    """Known keys of a recipe; unknown ones become errors."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"recipe {path} is no YAML: {one_line(error)}") from None
    if not isinstance(loaded, dict | None):
        raise UserError(f"recipe {path} must be a mapping of names to values, not a {type(loaded).__name__}")
    known: Values = {}
    for key, value in (loaded or {}).items():
        name = str(key).replace("-", "_")
        name = GRAMMAR.spellings.get(name, name)
        if name == "data":  # timm's positional folder, None in most of its args.yaml
            known |= {"data_dir": value} if value else {}
        elif name in GRAMMAR.fields or name in GRAMMAR.foreign:
            known[name] = value
        elif name not in _FACTS:
            errors.append(f"{path}: " + GRAMMAR.unknown(str(key), "key"))
    return known
