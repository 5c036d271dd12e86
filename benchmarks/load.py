"""How long a checkpoint of BERT-base's size takes to load from each format, and how much memory at most.

python benchmarks/load.py [--layers 12] [--repeats 3] [--json FILE]

Random weights are written in every format into a temporary directory (the SavedModel by tf-models' exporter, of the
extra `interop`). Each is loaded into our model by processes of their own, which have imported everything before. Memory
is the growth of the peak (VmHWM) relative to the bytes of the weights in float32, files that are mapped included. The
files have just been written, so that they come from the page cache.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tf_bert.config import BertConfig
from tf_bert.interop.source import open_source, write_weights
from tf_bert.models.directory import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, read_directory, save_model
from tf_bert.models.layer import taking_weights
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.models.weights import assign_weights

SHARD_BYTES = 100 << 20
HEADS = ("pooler", "masked_lm", "next_sentence")


def peak() -> int:
    """Most resident memory of this process so far, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def load(source: str) -> dict[str, float]:
    """Loads a source into a model; returns seconds, growth of the peak in bytes, and bytes of the weights."""
    before, started = peak(), time.perf_counter()
    with open_source(source) as opened:
        with taking_weights():
            model = BertForPretraining(opened.weights.config)
        report = assign_weights(model, opened.weights, optional=HEADS)
    seconds = time.perf_counter() - started
    assert len(report.newly_made) < len(report.loaded)
    return {"seconds": seconds, "growth": peak() - before, "weights": 4 * model.count_params()}


def write_sources(directory: Path, config: BertConfig) -> dict[str, Path]:
    """The same weights in every format."""
    places = {
        "model directory": directory / "model",
        "model directory, shards of 100 MB": directory / "sharded",
        "model directory, float16": directory / "float16",
        "google-research TF1": directory / "google",
        "Model Garden TF2": directory / "garden",
        "SavedModel": directory / "saved_model",
    }
    model, sharded, halved, google, garden, saved_model = places.values()
    for place in (model, sharded, halved, google, garden):
        place.mkdir()
    save_model(BertForPretraining(config), model, {})
    for place in (sharded, halved):
        (place / CONFIG_FILE).write_bytes((model / CONFIG_FILE).read_bytes())
    tensors = load_file(model / WEIGHTS_FILE)
    write_shards(tensors, sharded)
    save_file({name: value.astype(np.float16) for name, value in tensors.items()}, halved / WEIGHTS_FILE)
    weights = read_directory(model)
    write_weights(weights, google, "google")
    write_weights(weights, garden, "model-garden")
    export_saved_model(config, garden, saved_model)
    return places


def write_shards(tensors: dict[str, np.ndarray], directory: Path) -> None:
    """Files of at most `SHARD_BYTES` and their index, with the names that transformers gives them."""
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, value in tensors.items():
        if shards[-1] and sum(tensor.nbytes for tensor in shards[-1].values()) + value.nbytes > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = value
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file)
        places |= dict.fromkeys(shard, file)
    (directory / INDEX_FILE).write_text(json.dumps({"weight_map": places}))


def export_saved_model(config: BertConfig, checkpoint: Path, directory: Path) -> None:
    """A SavedModel of encoder and masked-LM head, as on TF Hub, with a vocabulary that nothing reads."""
    from official.nlp.tools import export_tfhub_lib

    vocabulary = checkpoint / "words.txt"
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary.write_text("\n".join([*special, *(f"word{i}" for i in range(config.vocab_size - len(special)))]))
    fields = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fields += ("max_position_embeddings", "type_vocab_size")
    export_tfhub_lib.export_model(
        str(directory),
        bert_config=export_tfhub_lib.configs.BertConfig(**{name: getattr(config, name) for name in fields}),
        model_checkpoint_path=str(checkpoint / "bert_model.ckpt"),
        with_mlm=True,
        vocab_file=str(vocabulary),
        do_lower_case=True,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12, help="of the model; BERT-base has 12 (default)")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each format (default: 3)")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--load", metavar="SOURCE", help="only load this one here, and print its numbers as JSON")
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load)))
        return
    table = []
    with tempfile.TemporaryDirectory() as directory:
        for name, place in write_sources(Path(directory), BertConfig(num_hidden_layers=options.layers)).items():
            command = [sys.executable, __file__, "--load", str(place)]
            done = [subprocess.run(command, check=True, capture_output=True) for _ in range(options.repeats)]
            found = [json.loads(process.stdout.splitlines()[-1]) for process in done]
            table.append({"format": name, **{key: statistics.median(each[key] for each in found) for key in found[0]}})
    print(
        f"{platform.machine()}; medians of {options.repeats} processes; {table[0]['weights'] / 1e6:.0f} MB of weights\n"
    )
    print("| format | seconds | peak memory, MB | of the weights |\n|---|---|---|---|")
    for row in table:
        print(
            f"| {row['format']} | {row['seconds']:.1f} | {row['growth'] / 1e6:.0f} "
            f"| {row['growth'] / row['weights']:.2f} |"
        )
    if options.json:
        options.json.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
