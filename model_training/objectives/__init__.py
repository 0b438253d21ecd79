"""What a student is held to: angular distillation, its rivals, margin softmax, stages."""
