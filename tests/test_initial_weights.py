"""`tf-bert pretrain --init`: a run that goes on from somebody's weights."""

import json
import shutil

import numpy as np
import pytest
from pretraining_runs import NO_DROPOUT, command, configure
from safetensors.numpy import load_file

from tf_bert.cli import main
from tf_bert.errors import UsageError
from tf_bert.interop.source import open_source, write_weights
from tf_bert.pretraining import pretrain
from tf_bert.run_log import read_metrics
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

# With no rate and no decay an update changes nothing, so a run ends with the weights that it started from.
STANDING_STILL = {
    "training.num_train_steps": 1,
    "optimizer.num_warmup_steps": 0,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay_rate": 0,
}


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The model directory of a short run."""
    output_dir = tmp_path_factory.mktemp("trained") / "run"
    pretrain(configure(data_dir, output_dir, **{"training.num_train_steps": 8, "cadence.evaluate_every": 8}))
    return output_dir / "model"


def words(data_dir, output_dir, init, **changes):
    """`pretrain --init` without a word on the model: its shape is the source's."""
    given = command(data_dir, output_dir, **{"init": init, **changes})
    pairs = zip(given[4::2], given[5::2], strict=True)
    return ["pretrain", *(word for pair in pairs if not pair[0].startswith("--model.") for word in pair)]


def tensors_of(model_dir):
    return load_file(model_dir / "model.safetensors")


@pytest.mark.parametrize("to", ["hf", "google", "model-garden"])
def test_a_run_starts_from_weights_of_every_format(trained, data_dir, tmp_path, to, capsys):
    source = tmp_path / "source"
    source.mkdir()
    with open_source(str(trained)) as opened:
        write_weights(opened.weights, source, to)
        save_tokenizer(source, opened.vocabulary, opened.lower_case)
    assert main(words(data_dir, tmp_path / "run", source, **STANDING_STILL)) == 0
    before, after = tensors_of(trained), tensors_of(tmp_path / "run" / "model")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    # What the one run ended with is what the other begins with.
    last = [e for e in read_metrics(trained.parent / "metrics.jsonl") if "validation/loss" in e][-1]
    first = next(e for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation/loss" in e)
    assert first["validation/loss"] == pytest.approx(last["validation/loss"], rel=1e-6)
    told = capsys.readouterr().out
    assert f"{source}: 46 tensors loaded" in told
    assert "newly made" not in told
    lineage = json.loads((tmp_path / "run" / "model" / "lineage.json").read_text())
    assert lineage["init"]["source"] == str(source) and lineage["pretraining"]["init"] == str(source)


def test_missing_heads_are_made_and_told(trained, data_dir, tmp_path, capsys):
    from tf_bert.models.directory import save_model
    from tf_bert.models.model import BertModel
    from tf_bert.models.weights import assign_weights

    encoder_only = tmp_path / "encoder"
    encoder_only.mkdir()
    with open_source(str(trained)) as opened:
        model = BertModel(opened.weights.config, parts=("encoder",))
        assign_weights(model, opened.weights)
        save_model(model, encoder_only, {})
        save_tokenizer(encoder_only, opened.vocabulary, opened.lower_case)
    assert main(words(data_dir, tmp_path / "run", encoder_only, **STANDING_STILL)) == 0
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if "newly made" in line]
    made = line.partition(": ")[2].split(", ")
    assert [name for name in made if "pooler" in name] and "cls.predictions.bias" in made and len(made) == 9
    before, after = tensors_of(trained), tensors_of(tmp_path / "run" / "model")
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name not in made or before[name].max() == 0), name


def test_the_source_is_needed_for_the_first_step_alone(trained, data_dir, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    settings = {"cadence.checkpoint_every": 2, **NO_DROPOUT}
    pretrain(configure(data_dir, tmp_path / "whole", init=str(source), **settings, **{"training.num_train_steps": 4}))
    halfway = tmp_path / "halves"
    config = configure(data_dir, halfway, init=str(source), **settings, **{"training.num_train_steps": 4})
    pretrain(config)
    # As if it had been killed after step 2.
    shutil.rmtree(halfway / "checkpoints" / "step-00000004")
    shutil.rmtree(halfway / "model")
    shutil.rmtree(source)
    pretrain(config)
    whole, halves = tensors_of(tmp_path / "whole" / "model"), tensors_of(halfway / "model")
    assert all(np.array_equal(whole[name], halves[name]) for name in whole)


def test_another_vocabulary_has_to_be_asked_for(trained, data_dir, tmp_path, capsys):
    """The data is as it was; the source has one token less and another one more."""
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    tokens = Vocabulary.load(source / "vocab.txt").tokens
    changed = ("qqq" if token == tokens[300] else token for token in tokens)
    Vocabulary(tuple(changed)).save(source / "vocab.txt")
    assert main(words(data_dir, tmp_path / "run", source, **STANDING_STILL)) == 2
    told = capsys.readouterr().err
    assert f"init {source}: has another vocabulary (600 tokens) than {data_dir} (600); prepare the data with" in told
    assert told.count("\n") == 1 and not (tmp_path / "run").exists()
    assert main(words(data_dir, tmp_path / "run", source, replace_vocabulary="true", **STANDING_STILL)) == 0
    assert "599 tokens keep their rows" in capsys.readouterr().out
    after = tensors_of(tmp_path / "run" / "model")["bert.embeddings.word_embeddings.weight"]
    before = tensors_of(trained)["bert.embeddings.word_embeddings.weight"]
    assert after.shape == (600, 32) and before.shape == (640, 32)  # the rows that were there for padding are gone
    same = [i for i in range(600) if np.array_equal(before[i], after[i])]
    assert sorted(set(range(600)) - set(same)) == [300]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"init": "absent"}, 1, "absent: no such file or directory; expected config.json with model.safetensors"),
        (
            {"model.hidden_size": 64},
            2,
            "model.hidden_size is 64, but init {source} has 32; leave the setting (and model",
        ),
        ({"model_size": "tiny"}, 0, ""),  # what the source says goes before
        (
            {"init": "null", "replace_vocabulary": "true"},
            2,
            "replace_vocabulary is about the weights that init names, b",
        ),
    ],
    ids=["absent", "shape", "size", "nothing to replace"],
)
def test_mistakes_are_one_line_before_anything_is_made(
    trained, data_dir, tmp_path, monkeypatch, capsys, changes, code, message
):
    monkeypatch.chdir(tmp_path)
    changes = dict(changes)
    given = words(data_dir, "run", changes.pop("init", trained), **STANDING_STILL)
    given += [word for key, value in changes.items() for word in (f"--{key}", str(value))]
    assert main(given) == code
    told = capsys.readouterr().err
    assert message.format(source=trained) in told and told.count("\n") == bool(code)
    assert (tmp_path / "run").exists() == (code == 0)


def test_a_cased_source_is_not_trained_on_uncased_data(trained, data_dir, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    assert main(words(data_dir, tmp_path / "run", source, **STANDING_STILL)) == 2
    assert (
        f"is cased (by tokenizer_config.json), but {data_dir} is uncased; prepare the data with lower_case false"
        in (capsys.readouterr().err)
    )


def test_a_run_that_knew_fewer_settings_goes_on(trained, data_dir, tmp_path, capsys):
    output_dir = tmp_path / "run"
    shutil.copytree(trained.parent, output_dir)
    known = json.loads((output_dir / "run.json").read_text())
    del known["model.tie_word_embeddings"], known["init"]
    (output_dir / "run.json").write_text(json.dumps(known))
    again = {"training.num_train_steps": 8, "cadence.evaluate_every": 8}
    pretrain(configure(data_dir, output_dir, **again))
    assert "goes on from step 8" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"holds a run with model.tie_word_embeddings True, found False"):
        pretrain(configure(data_dir, output_dir, **again, **{"model.tie_word_embeddings": "false"}))


def test_the_dry_run_looks_at_the_source(trained, data_dir, tmp_path, capsys):
    assert main([*words(data_dir, tmp_path / "run", trained), "--dry-run"]) == 0
    assert (
        f"ok      init: {trained} (huggingface): encoder, pooler, masked_lm, next_sentence" in capsys.readouterr().out
    )
    assert main([*words(data_dir, tmp_path / "run", trained), "--model.hidden_size", "64", "--dry-run"]) == 2
    assert "FAILED  init: model.hidden_size is 64, but init" in capsys.readouterr().out
