"""Strict configuration: what is read, and what the messages say."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from tf_bert import config
from tf_bert.config import BertConfig, PrepareConfig, PretrainConfig, TrainingConfig, accumulation_steps, load
from tf_bert.config.mounts import without_mounts
from tf_bert.errors import InputError, UsageError


def test_yaml_is_read_and_the_command_line_wins(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model:\n  hidden_size: 24\noptimizer:\n  learning_rate: 1e-3\n  num_warmup_steps: 5\n")
    read = load(PretrainConfig, str(path), {"model.hidden_size": "48", "training.jit_compile": None})
    assert read.model.hidden_size == 48
    # YAML 1.1 takes 1e-3 for a string; a number field reads it as the number that was meant.
    assert read.optimizer.learning_rate == 0.001 and read.optimizer.num_warmup_steps == 5
    assert read.training == PretrainConfig().training


def test_a_config_survives_plain_values():
    original = load(PretrainConfig, None, {"model.hidden_act": "relu", "training.jit_compile": "true"})
    assert config.from_dict(PretrainConfig, json.loads(json.dumps(config.to_dict(original))), "test") == original


def test_one_input_is_a_sequence_of_one():
    assert load(PrepareConfig, None, {"input": "a.txt"}).input == ("a.txt",)
    assert load(PrepareConfig, None, {"input": ["a.txt", "b.txt"]}).input == ("a.txt", "b.txt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.hiden_size": 3}, r"unknown key 'model.hiden_size'; did you mean 'model.hidden_size'\?"),
        ({"hidden_size": 3}, r"unknown key 'hidden_size'; did you mean 'model.hidden_size'\?"),
        ({"training.qqq": 3}, r"unknown key 'training.qqq'; known keys here: num_train_steps, global_batch"),
        ({"model": 3}, r"model: found 3: "),
        ({"model": 3, "model.hidden_size": 4}, r"--model.hidden_size: model is a single value, not a group"),
        ({"model.hidden_size": "wide"}, r"model.hidden_size: found 'wide': .*valid integer"),
        ({"model.hidden_size": 7}, r"hidden_size 7 is not a multiple of num_attention_heads 12; choose e.g. .* 7"),
        ({"data.masked_lm_prob": 1.5}, r"data.masked_lm_prob: found 1.5: .*less than 1"),
        (
            {"data.mean_span_words": 3},
            r"mean_span_words 3 chooses runs of whole words, but whole_word_masking is false;",
        ),
        ({"training.precision": "fp16"}, r"training.precision: found 'fp16': .*'mixed_float16'"),
        ({"training.microbatch_size": 7}, r"global_batch_size 256 is not a multiple .* 7 x 1 ranks = 7; .* is: 259"),
        ({"training.num_train_steps": 10}, r"optimizer.num_warmup_steps 10000 exceeds training.num_train_steps 10;"),
    ],
)
def test_what_does_not_fit_is_named_with_the_way_out(overrides, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(PretrainConfig, None, overrides)
    assert "\n" not in str(caught.value)


def test_runs_of_words_are_prepared_of_whole_words_alone():
    changes = {"input": "a.txt", "row_format": "original", "mean_span_words": 2.5}
    with pytest.raises(
        UsageError, match=r"mean_span_words 2\.5 .* whole_word_masking is false; set it to true, or mean_"
    ):
        load(PrepareConfig, None, changes)
    assert load(PrepareConfig, None, {**changes, "whole_word_masking": "true"}).mean_span_words == 2.5


def test_a_required_field_says_what_it_is():
    with pytest.raises(UsageError, match=r"'input' is required and missing: Files, directories or globs"):
        load(PrepareConfig, None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", r"run.yaml: line \d: is not valid YAML"),
        ("- a\n- b\n", r"run.yaml: found a YAML list, expected `key: value` lines"),
        (
            "modle:\n  hidden_size: 3\n",
            r"run.yaml: unknown key 'modle'; did you mean 'model'\?",
        ),
    ],
)
def test_a_bad_yaml_file_is_named(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(PretrainConfig, str(path))


def test_a_missing_yaml_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: cannot be read: No such file"):
        load(PretrainConfig, str(tmp_path / "absent.yaml"))


def test_accumulation_follows_from_batch_and_ranks():
    training = TrainingConfig(global_batch_size=96, microbatch_size=8)
    assert [accumulation_steps(training, ranks) for ranks in (1, 2, 3, 12)] == [12, 6, 4, 1]
    with pytest.raises(ValueError, match=r"96 is not a multiple of training.microbatch_size 8 x 5 ranks = 40; .*: 80"):
        accumulation_steps(training, 5)


def test_every_field_has_a_docstring():
    for cls in (PretrainConfig, PrepareConfig, config.VocabTrainConfig):
        undocumented = [field.key for field in config.describe_fields(cls) if not field.doc]
        assert undocumented == []


GOOGLE = {  # the keys of a released bert_config.json
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pooler_fc_size": 768,
    "type_vocab_size": 2,
    "vocab_size": 28996,
}
HUGGING_FACE = {
    **GOOGLE,
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.8.0",
    "use_cache": True,
}


@pytest.mark.parametrize("published", [GOOGLE, HUGGING_FACE], ids=["google", "hugging face"])
def test_a_published_config_loads_verbatim(tmp_path, published):
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(published))
    loaded = config.load_bert_config(path)
    assert loaded == dataclasses.replace(BertConfig(), vocab_size=28996)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"bert_config.json: is not valid JSON"),
        ("[]", r"bert_config.json: found a JSON list, expected an object"),
        ('{"position_embedding_type": "relative_key"}', r"position_embedding_type is 'relative_key', expected 'absol"),
        ('{"hidden_size": "big"}', r"bert_config.json: hidden_size: found 'big'"),
        ('{"hidden_act": "swish"}', r"hidden_act: found 'swish': .*'gelu_new'"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "bert_config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        config.load_bert_config(path)


def test_the_configuration_reference_is_up_to_date():
    script = Path(__file__).parent.parent / "scripts" / "write_configuration.py"
    namespace = runpy.run_path(str(script))
    assert namespace["PATH"].read_text(encoding="utf-8") == namespace["render"](), f"run python {script.name}"


def test_settings_of_two_attempts_of_an_azure_job_are_the_same():
    first, second = (
        {
            "init": f"/mnt/azureml/cr/j/{job}/cap/data-capability/wd/INPUT_model/base",
            "files": (f"{job}.csv", f"/mnt/azureml/cr/j/{job}/cap/data-capability/wd/INPUT_data/a.csv"),
            "seeds": 3,
        }
        for job in ("1f", "9a")
    )
    assert without_mounts(first) == {"init": "INPUT_model/base", "files": ["1f.csv", "INPUT_data/a.csv"], "seeds": 3}
    assert {key for key in first if without_mounts(first)[key] != without_mounts(second)[key]} == {"files"}
