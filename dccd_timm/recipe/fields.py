"""Every word of a recipe: timm's names, meanings and defaults first, then what DCCD adds.

A field's flag is its name with dashes, its type the annotation. Values that mean "decide for me" are None.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dccd_timm.recipe.methods import METHODS


def option(
    default: Any,
    help: str,
    *flags: str,
    group: str,
    choices: tuple[str, ...] | None = None,
    count: int | None = None,
    const: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """One setting: ``flags`` are further spellings, ``count`` the number of values, ``low``/``high`` its range."""
    meta = dict(help=help, flags=flags, group=group, choices=choices, count=count, const=const, low=low, high=high)
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=meta)
    return field(default=default, metadata=meta)


_Group = Callable[..., Any]
_data: _Group = partial(option, group="Data")
_model: _Group = partial(option, group="Student")
_kd: _Group = partial(option, group="Teacher and distillation (timm's names)")
_dccd: _Group = partial(option, group="DCCD")
_optim: _Group = partial(option, group="Optimizer")
_sched: _Group = partial(option, group="Learning rate schedule")
_aug: _Group = partial(option, group="Augmentation and regularization")
_run: _Group = partial(option, group="Run")
_hub: _Group = partial(option, group="Hugging Face Hub")
_device: _Group = partial(option, group="Device and precision")


@dataclass(frozen=True)
class Recipe:
    """All settings of one training; made by :func:`dccd_timm.recipe.load_recipe`, which checks them together."""

    # fmt: off
    data_dir: str | None = _data(None, "root folder of the data set")
    dataset: str = _data("", "hfids/<local folder or hub id> streams; folder, torch/, hfds/, wds/ ... as in timm")
    train_split: str = _data("train", "training split")
    val_split: str = _data("validation", "validation split; empty for none")
    train_num_samples: int | None = _data(None, "images in the training split, for streams that do not say", low=1)
    val_num_samples: int | None = _data(None, "images in the validation split, for streams that do not say", low=1)
    dataset_download: bool = _data(False, "let timm's torch/, hfds/ and tfds/ readers download the data set")
    class_map: str = _data("", "text file that maps class names to indices")
    input_img_mode: str | None = _data(None, "PIL mode of the images (default: L for 1 channel, RGB for 3)")
    input_key: str | None = _data(None, "column of the images (default: found by its name)")
    target_key: str | None = _data(None, "column of the class indices (default: found by its name)")
    dataset_config: str | None = _data(None, "configuration of a Hub data set that has several")
    dataset_revision: str | None = _data(None, "branch, tag or commit of a Hub data set")
    data_errors: str = _data("skip", "skip images and shards that cannot be read, or stop", choices=("skip", "raise"))
    max_data_errors: int = _data(100, "stop when more images than this could not be read", low=0)
    pil_views: bool = _data(False, "draw training views with Pillow as timm does, and not with faster uint8 kernels")
    data_timeout: float = _data(600.0, "seconds without data after which a Hub data set is given up", low=1)
    workers: int = _data(4, "loader processes per rank", "-j", low=0)
    pin_mem: bool = _data(False, "pin CPU memory for faster copies to the GPU")
    no_prefetcher: bool = _data(False, "normalise in the loader's workers and not on the device")
    batch_size: int = _data(128, "images per rank and step; each brings --dccd-views views", "-b", low=1)
    validation_batch_size: int | None = _data(None, "images per rank in validation", "-vb", low=1)
    train_batches_per_epoch: int | None = _data(
        None, "fixed number of loader batches per epoch", "--train-steps-per-epoch", low=1)
    epoch_repeats: float = _data(0.0, "passes over the data per epoch, if above 0", low=0)

    model: str = _model("resnet50", "student: a timm name, hf-hub:owner/name or local-dir:path")
    pretrained: bool = _model(False, "start the student from its pretrained weights")
    pretrained_path: str | None = _model(None, "load this file as if it were the pretrained weights")
    initial_checkpoint: str = _model("", "weights to start from, after the model was built")
    num_classes: int | None = _model(None, "number of classes (default: the data set's, else the model's)", low=1)
    gp: str | None = _model(None, "global pool: fast, avg, max, avgmax, catavgmax")
    img_size: int | None = _model(None, "image size in pixels (default: the model's)", low=1)
    in_chans: int | None = _model(None, "image channels (default: 3)", low=1)
    input_size: tuple[int, ...] | None = _model(None, "channels, height and width, e.g. 3 224 224", count=3)
    crop_pct: float | None = _model(None, "part of the image that validation's centre crop keeps")
    mean: tuple[float, ...] | None = _model(None, "mean of the normalisation, one value per channel")
    std: tuple[float, ...] | None = _model(None, "standard deviation of the normalisation")
    interpolation: str = _model("", "resize interpolation of validation (default: the model's)")
    channels_last: bool = _model(False, "keep images and weights in channels-last memory layout")
    grad_checkpointing: bool = _model(False, "recompute activations in the backward pass to save memory")
    fast_norm: bool = _model(False, "timm's fast norm layers")
    model_kwargs: dict[str, Any] = _model({}, "arguments of the architecture, key=value ...")
    head_init_scale: float | None = _model(None, "factor on the classifier's initial weights")
    head_init_bias: float | None = _model(None, "initial bias of the classifier")
    bn_momentum: float | None = _model(None, "momentum of BatchNorm statistics")
    bn_eps: float | None = _model(None, "epsilon of BatchNorm")
    sync_bn: bool = _model(False, "BatchNorm statistics over all ranks")
    split_bn: bool = _model(False, "BatchNorm statistics of each view by itself in training")
    dist_bn: str = _model("reduce", "share BatchNorm statistics after each epoch", choices=("broadcast", "reduce", ""))
    model_ema: bool = _model(False, "keep an exponential moving average of the student")
    model_ema_force_cpu: bool = _model(False, "keep the average on the CPU (it is then not validated)")
    model_ema_decay: float = _model(0.9998, "decay of the average", low=0, high=1)
    model_ema_warmup: bool = _model(False, "let the decay grow in the beginning")

    kd_model_name: str | None = _kd(None, "teacher: a timm name, hf-hub:owner/name or local-dir:path")
    kd_teacher_checkpoint: str | None = _kd(None, "teacher weights (safetensors or timm checkpoint) for a timm name")
    kd_teacher_dtype: str | None = _kd(
        None, "precision of the teacher (default: that of mixed precision on a GPU, else float32)",
        choices=("float32", "bfloat16", "float16"))
    kd_distill_type: str = _kd("logit", "method; all but dccd and none are timm's own tasks", choices=tuple(METHODS))
    kd_loss_type: str = _kd("kl", "loss between logits", choices=("kl",))
    distill_loss_weight: float | None = _kd(None, "weight of the distillation loss (default 1; timm's rule)", low=0)
    task_loss_weight: float | None = _kd(None, "weight of the task loss; alone it means 1 - w for distillation", low=0)
    kd_temperature: float = _kd(4.0, "temperature of the distillation softmax", low=1e-6)
    kd_student_feature_dim: int | None = _kd(None, "feature: width of the student's features", low=1)
    kd_teacher_feature_dim: int | None = _kd(None, "feature: width of the teacher's features", low=1)
    kd_token_distill_type: str = _kd("soft", "token: soft or hard teacher targets", choices=("soft", "hard"))

    dccd_views: int | None = _dccd(None, "augmented views per image, for every method (default: 2 for dccd, 1 else)",
                                   low=1)
    dccd_view_aug: tuple[str, ...] = _dccd(
        ("same",), "how the views relate: same, weak-strong, near, or a word for each: strong, weak, near:K")
    dccd_near_shift: int | None = _dccd(None, "near: largest shift in pixels (default: 1/50 of the size)", low=0)
    dccd_near_noise: float = _dccd(0.02, "near views: standard deviation of the noise, pixels in 0 ... 1", low=0)
    dccd_contrast_weight: float = _dccd(5.0, "weight of the channel contrast term", low=0)
    dccd_contrast_temperature: float = _dccd(0.1, "temperature of the channel contrast", low=1e-6)
    dccd_contrast_where: str = _dccd("spatial", "compare channels at all positions or after pooling",
                                     choices=("spatial", "pooled"))
    dccd_contrast_stages: tuple[int, ...] | None = _dccd(
        None, "stages counted from the end, e.g. -1 -2 (default: the deepest with at least 16 positions)")
    dccd_contrast_direction: str = _dccd("symmetric", "match in both directions, or each student channel only",
                                         choices=("symmetric", "student"))
    dccd_contrast_scope: str = _dccd("global", "channel statistics over the batches of all ranks, or of each rank",
                                     choices=("global", "local"))
    dccd_contrast_targets: str = _dccd("soft", "the teacher's own channel similarities, or the same channel only",
                                       choices=("hard", "soft"))
    dccd_contrast_negatives: str = _dccd(
        "teacher", "tell a student channel from the teacher's other channels, or from the student's own",
        choices=("teacher", "student"))
    dccd_difference_weight: float = _dccd(0.02, "weight of the difference term", low=0)
    dccd_difference_temperature: float = _dccd(4.0, "temperature of the difference (kl)", low=1e-6)
    dccd_difference_loss: str = _dccd("kl", "compare differences by KL of their softmax or by MSE",
                                      choices=("kl", "mse"))
    dccd_difference_views: tuple[int, ...] | None = _dccd(
        None, "the two views whose difference is compared (default: a near pair, else 0 1)", count=2)
    dccd_control: str | None = _dccd(None, "also train the same student this way (same seed, steps, views) and compare",
                                     choices=tuple(name for name in METHODS if name != "dccd"))

    opt: str = _optim("sgd", "any of timm's optimizers")
    opt_eps: float | None = _optim(None, "epsilon of the optimizer")
    opt_betas: tuple[float, ...] | None = _optim(None, "betas of the optimizer")
    momentum: float = _optim(0.9, "momentum")
    weight_decay: float = _optim(2e-5, "weight decay")
    clip_grad: float | None = _optim(None, "clip gradients at this value")
    clip_mode: str = _optim("norm", "how to clip", choices=("norm", "value", "agc"))
    layer_decay: float | None = _optim(None, "layer-wise learning rate decay")
    layer_decay_min_scale: float = _optim(0.0, "lowest factor of the layer decay")
    layer_decay_no_opt_scale: float | None = _optim(None, "layers below this factor are not trained")
    opt_kwargs: dict[str, Any] = _optim({}, "further arguments of the optimizer, key=value ...")
    grad_accum_steps: int = _optim(1, "batches per update", low=1)

    sched: str = _sched("cosine", "timm's scheduler: cosine, tanh, step, multistep, poly, plateau, wsd, none")
    sched_on_updates: bool = _sched(False, "set the rate at each update and not at each epoch")
    lr: float | None = _sched(None, "learning rate; overrides --lr-base", low=0)
    lr_base: float = _sched(0.1, "rate for a global batch of --lr-base-size images", low=0)
    lr_base_size: int = _sched(256, "batch that --lr-base is given for", low=1)
    lr_base_scale: str | None = _sched(None, "scaling with the batch (default: sqrt for adaptive optimizers)",
                                       choices=("linear", "sqrt", ""))
    lr_noise: tuple[float, ...] | None = _sched(None, "rate noise, from and to this part of the training")
    lr_noise_pct: float = _sched(0.67, "limit of the rate noise")
    lr_noise_std: float = _sched(1.0, "standard deviation of the rate noise")
    lr_cycle_mul: float = _sched(1.0, "factor on the length of each cycle")
    lr_cycle_decay: float = _sched(0.5, "factor on the rate of each cycle")
    lr_cycle_limit: int = _sched(1, "number of cycles")
    lr_k_decay: float = _sched(1.0, "k-decay of cosine and poly")
    lr_decay_fn: str | None = _sched(None, "wsd: shape of the decay")
    lr_stable_timescale: float | None = _sched(None, "wsd: time scale of the stable phase")
    warmup_lr: float = _sched(1e-5, "rate at the start of the warm-up")
    min_lr: float = _sched(0.0, "lowest rate")
    epochs: int = _sched(300, "epochs", low=1)
    start_epoch: int | None = _sched(None, "first epoch, for restarts", low=0)
    decay_milestones: tuple[int, ...] = _sched((90, 180, 270), "multistep: epochs at which the rate falls")
    decay_epochs: float = _sched(90.0, "step: epochs between decays")
    warmup_epochs: int = _sched(5, "epochs of warm-up", low=0)
    warmup_prefix: bool = _sched(False, "the warm-up comes before the schedule and not out of it")
    cooldown_epochs: int = _sched(0, "epochs at --min-lr after the schedule", low=0)
    patience_epochs: int = _sched(10, "plateau: epochs without gain")
    decay_rate: float = _sched(0.1, "factor of a decay", "--dr")

    no_aug: bool = _aug(False, "no training augmentation")
    train_crop_mode: str | None = _aug(None, "rrc, rkrc or rkrr", choices=("rrc", "rkrc", "rkrr"))
    train_crop_pad: int = _aug(
        0, "if above 0: a crop of the input's size out of the image with so many pixels around it, as for CIFAR", low=0)
    scale: tuple[float, ...] | None = _aug((0.08, 1.0), "area of the random crop", count=2)
    ratio: tuple[float, ...] | None = _aug((3 / 4, 4 / 3), "aspect ratio of the random crop", count=2)
    hflip: float = _aug(0.5, "probability of a horizontal flip", low=0, high=1)
    vflip: float = _aug(0.0, "probability of a vertical flip", low=0, high=1)
    color_jitter: float | None = _aug(0.4, "strength of colour jitter")
    color_jitter_prob: float | None = _aug(None, "probability of colour jitter", low=0, high=1)
    grayscale_prob: float | None = _aug(None, "probability of grey images", low=0, high=1)
    gaussian_blur_prob: float | None = _aug(None, "probability of blur", low=0, high=1)
    aa: str | None = _aug(None, "auto-augment policy, e.g. rand-m9-mstd0.5-inc1, 3a")
    bce_loss: bool = _aug(False, "binary cross-entropy as task loss")
    bce_sum: bool = _aug(False, "sum the binary cross-entropy over classes")
    bce_target_thresh: float | None = _aug(None, "binarise soft targets above this value")
    bce_pos_weight: float | None = _aug(None, "weight of positives in the binary cross-entropy")
    reprob: float = _aug(0.0, "probability of random erasing", low=0, high=1)
    remode: str = _aug("pixel", "fill of the erased box", choices=("const", "rand", "pixel"))
    recount: int = _aug(1, "boxes to erase", low=1)
    resplit: bool = _aug(False, "leave the first view of each image unerased")
    mixup: float = _aug(0.0, "mixup alpha; on if above 0", low=0)
    cutmix: float = _aug(0.0, "cutmix alpha; on if above 0", low=0)
    cutmix_minmax: tuple[float, ...] | None = _aug(None, "least and largest cutmix box", count=2)
    mixup_prob: float = _aug(1.0, "probability of mixing a batch", low=0, high=1)
    mixup_switch_prob: float = _aug(0.5, "probability of cutmix when both are on", low=0, high=1)
    mixup_mode: str = _aug("batch", "mix per batch, pair or element", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = _aug(0, "no mixing from this epoch on, if above 0", low=0)
    smoothing: float = _aug(0.1, "label smoothing", low=0, high=1)
    train_interpolation: str = _aug("random", "resize interpolation of training")
    drop: float = _aug(0.0, "dropout rate", low=0, high=1)
    drop_path: float | None = _aug(None, "stochastic depth rate", low=0, high=1)
    drop_block: float | None = _aug(None, "drop block rate", low=0, high=1)

    nonfinite: str = _run(
        "stop", "a loss or gradient that is not finite: stop, or skip that update (10 in a row stop all the same)",
        choices=("stop", "skip"))
    seed: int = _run(42, "random seed")
    log_interval: int = _run(50, "updates between log lines", low=1)
    recovery_interval: int = _run(0, "updates between two saved states inside an epoch, if above 0", low=0)
    checkpoint_hist: int = _run(10, "saved states to keep", low=1)
    val_interval: int = _run(1, "epochs between validations", low=1)
    output: str = _run("output/train", "folder of the runs")
    experiment: str = _run("", "name of this run's folder (default: time, student and teacher)")
    eval_metric: str = _run("top1", "what makes the best epoch", choices=("top1", "top5", "loss"))
    resume: str | None = _run(None, "continue a run: its folder, or auto with --experiment")
    no_resume_opt: bool = _run(False, "do not restore the optimizer when resuming")
    log_with: str = _run(
        "none", "where curves are logged beside summary.csv", choices=("none", "tensorboard", "wandb", "trackio"))
    log_wandb: bool = _run(False, "timm's word for --log-with wandb")
    wandb_project: str | None = _run(None, "project of the W&B or trackio run (default: dccd-timm)")
    wandb_tags: tuple[str, ...] = _run((), "tags of the W&B run")
    wandb_resume_id: str = _run("", "id of the W&B run to continue")

    push_to_hub: str | None = _hub(None, "push the student with its card and pictures to owner/name at the end")
    hub_public: bool = _hub(False, "make a new repository public (default: private)")
    hub_revision: str | None = _hub(None, "branch to push to; made when there is none")
    hub_interval: int = _hub(0, "also push the best student so far every N epochs, if above 0", low=0)
    hub_license: str | None = _hub(None, "license of the card (default: that of what the student was made from)")

    device: str = _device("cuda", "cpu forces the CPU; else accelerate takes the best device there is")
    amp: bool = _device(False, "mixed precision")
    amp_dtype: str = _device("float16", "lower precision of --amp", choices=("float16", "bfloat16"))
    torchcompile: str | None = _device(None, "compile student and teacher, with this backend", const="inductor")
    torchcompile_mode: str | None = _device(None, "mode of torch.compile")
    no_ddp_bb: bool = _device(False, "do not broadcast buffers at each distributed step")
    dist_timeout: float | None = _device(
        None, "seconds after which a rank that does not answer ends the run (default: --data-timeout and 5 minutes)",
        low=1)
    device_modules: tuple[str, ...] = _device((), "modules to import first (device plugins, model plugins)")
    # fmt: on
