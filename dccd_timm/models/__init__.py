"""Student, frozen teacher, and where their feature maps are tapped."""
