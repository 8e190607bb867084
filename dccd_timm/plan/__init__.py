"""What a training step costs, found without computing it: memory by part, operations, time, and what would fit."""
