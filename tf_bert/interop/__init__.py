"""Weights from and for other tools: Hugging Face, google-research's TF1 checkpoints, Model Garden, TF Hub.

`source.py` opens and writes all of them, `archives.py` unpacks them, and `text_case.py` finds out whether a model is
cased. `google.py` and `model_garden.py` are the formats; `names.py` is what tensors are called there, `bert_config.py`
the file that both have, `garden_objects.py` where a BERT is among Model Garden's objects. `tf_checkpoint.py`,
`checkpoint_index.py` and `object_graph.py` read TensorFlow's files.

What is opened is data: nothing in it is run, no pickles and no graphs.
"""
