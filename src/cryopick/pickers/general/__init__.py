"""`general`: the pretrained default picker, its training and its fine-tuning."""
