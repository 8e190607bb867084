"""One step, one loop, on accelerate; knows timm's TrainingTask and no method."""
