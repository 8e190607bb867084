"""Flags of timm's train.py that are not fields of a Recipe: taken over by accelerate or by us, or refused."""

from dccd_timm.recipe.foreign import OLDER, ForeignFlag

_NAFLEX = "NaFlex batches have no NCHW feature map to compare channels on; use a fixed --img-size"
_SCHEDULED_SIZE = "views of different sizes cannot share one forward; train at one --img-size"
_TORCHSCRIPT = "torch.jit is not maintained any more; use --torchcompile"

TAKEN_OVER = (
    ForeignFlag("local_rank", 0, 1, "the launcher tells accelerate the rank"),
    ForeignFlag("worker_seeding", "all", 1, "augmentation is seeded by --seed, epoch and image in every worker"),
    ForeignFlag("save_images", False, 0, "each run shows its first batch of views in report/views.png"),
    ForeignFlag("use_multi_epochs_loader", False, 0, "loader processes live for the whole run anyway"),
)

REFUSED = (
    ForeignFlag("dataset_trust_remote_code", False, 0, "code from a data set is never run; convert it to parquet"),
    ForeignFlag("fuser", "", 1, "the jit fusers are gone from torch; use --torchcompile"),
    ForeignFlag("torchscript", False, 0, _TORCHSCRIPT),
    ForeignFlag("model_dtype", None, 1, "weights stay in float32; use --amp --amp-dtype bfloat16"),
    ForeignFlag("synchronize_step", False, 0, "it only slows training; drop it"),
    ForeignFlag("aug_splits", 0, 1, "its splits share one crop; use --dccd-views for independent views"),
    ForeignFlag("jsd_loss", False, 0, "it needs --aug-splits; use --kd-distill-type dccd with --dccd-views 2"),
    ForeignFlag("drop_connect", None, 1, "deprecated in timm and never read there; use --drop-path"),
    ForeignFlag("tta", 0, 1, "timm's train.py does not apply it; validate with more views yourself"),
    ForeignFlag("train_img_sizes", None, "+", _SCHEDULED_SIZE),
    ForeignFlag("train_batch_sizes", None, "+", _SCHEDULED_SIZE),
    ForeignFlag("train_size_probs", None, "+", _SCHEDULED_SIZE),
    ForeignFlag("train_size_schedule", "constant", 1, _SCHEDULED_SIZE),
    ForeignFlag("train_size_schedule_spread", 0.65, 1, _SCHEDULED_SIZE),
    ForeignFlag("train_size_random_mix", 0.1, 1, _SCHEDULED_SIZE),
    ForeignFlag("variable_batch_loss_scale", "none", 1, _SCHEDULED_SIZE),
    ForeignFlag("naflex_loader", False, 0, _NAFLEX),
    ForeignFlag("naflex_train_seq_lens", [128, 256, 576, 784, 1024], "+", _NAFLEX),
    ForeignFlag("naflex_max_seq_len", 576, 1, _NAFLEX),
    ForeignFlag("naflex_patch_sizes", None, "+", _NAFLEX),
    ForeignFlag("naflex_patch_size_probs", None, "+", _NAFLEX),
    ForeignFlag("naflex_loss_scale", "linear", 1, _NAFLEX),
    ForeignFlag("naflex_patchify_channels_first", False, 0, _NAFLEX),
    # timm 1.0.31 added these after the table of 172 was made
    ForeignFlag("pretrained_cfg_overlay", None, 1, "set what it would set with --mean, --std, --crop-pct instead"),
    ForeignFlag("stop_epoch", None, 1, "set --epochs; a run can be continued with --resume"),
    ForeignFlag("save_epochs", None, "+", "a run keeps last/ and best/; copy last/ between two runs"),
    ForeignFlag("task", None, 1, "only single-label classification is distilled here"),
    ForeignFlag("loss", None, 1, "choose between cross-entropy and --bce-loss"),
    ForeignFlag("target_format", None, 1, "only single-label classification is distilled here"),
    ForeignFlag("multilabel_threshold", None, 1, "only single-label classification is distilled here"),
    # older timm
    *OLDER,
    ForeignFlag("bn_tf", False, 0, "it set TensorFlow's BatchNorm; use --bn-momentum 0.01 --bn-eps 0.001"),
    ForeignFlag("num_gpu", 1, 1, "launch one process per GPU: accelerate launch train.py ..."),
)
