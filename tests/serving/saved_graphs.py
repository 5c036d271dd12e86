"""What is in a SavedModel, and what a session computes with it."""

import tensorflow as tf
from served_models import CONFIG
from tensorflow.core.protobuf import saved_model_pb2


def operations(version_dir):
    """Every operation of the saved graph and of its functions, without the functions themselves."""
    saved = saved_model_pb2.SavedModel.FromString((version_dir / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    library = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in library for node in function.node_def)]
    return {node.op for node in nodes} - {function.signature.name for function in library}


CORE = {name for name in dir(tf.raw_ops) if not name.startswith("_")}


def trace(version_dir, texts):
    """Shapes of everything that a session computes for one request, by operation; as a server runs it."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(version_dir))
        signature = graph.signature_def["serving_default"]
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        metadata = tf.compat.v1.RunMetadata()
        found = session.run(
            {name: tensor.name for name, tensor in signature.outputs.items()},
            {signature.inputs[name].name: values for name, values in texts.items()},
            options,
            metadata,
        )
    shapes = [
        [axis.size for axis in output.tensor_description.shape.dim]
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
        for output in node.output
    ]
    return found, shapes


def longest(shapes):
    """The longest rows of hidden states."""
    return max(shape[1] for shape in shapes if len(shape) == 3 and shape[2] == CONFIG.hidden_size)
