"""Weights from and for other tools: Hugging Face, google-research's TF1 checkpoints, Model Garden, TF Hub.

`source.py` opens and writes all of them. `google.py` and `model_garden.py` know the formats and `names.py` what tensors
are called there; `tf_checkpoint.py`, `checkpoint_index.py` and `object_graph.py` read TensorFlow's files, `archives.py`
zip and tar, and `text_case.py` finds out whether a model is cased. What is opened is data: nothing in it is run, no
pickles and no graphs.
"""
