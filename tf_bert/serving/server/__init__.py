"""The local server of `tf-bert serve`: TensorFlow Serving's protocols, for trying out and for tests."""
