"""Tasks in timm's sense: forward and losses of one step, as timm.task.TrainingTask."""
