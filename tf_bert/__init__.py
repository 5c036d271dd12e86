"""Pretrain BERT on your own corpus, finetune it and serve it, with TensorFlow and Keras 3."""

__version__ = "0.1.0"
