"""Finetuning: tasks, their examples and metrics, and the training of a pretrained encoder on them."""
