"""Which of a checkpoint's tensors are the model's weights, and LoRA merged into them."""
