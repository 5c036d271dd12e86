"""SavedModels as on TF Hub, made by tf-models' own exporter."""

import dataclasses

import pytest
from garden_models import write
from random_weights import SMALL, assert_same_tensors, random_weights, values

from tf_bert.errors import InputError
from tf_bert.interop.source import open_source

ONE_LAYER = dataclasses.replace(SMALL, num_hidden_layers=1)
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tab", "##s")


@pytest.mark.parametrize("mlm", [False, True])
def test_saved_models_are_read_without_their_graphs(tmp_path, mlm):
    tfhub = pytest.importorskip("official.nlp.tools.export_tfhub_lib")
    config = tfhub.configs.BertConfig(
        vocab_size=SMALL.vocab_size,
        hidden_size=SMALL.hidden_size,
        num_hidden_layers=1,
        num_attention_heads=SMALL.num_attention_heads,
        intermediate_size=SMALL.intermediate_size,
        max_position_embeddings=SMALL.max_position_embeddings,
        type_vocab_size=SMALL.type_vocab_size,
    )
    weights = random_weights("BertForPreTraining" if mlm else "BertModel", ONE_LAYER)
    vocabulary = tmp_path / ("vocab.txt" if mlm else "words.txt")
    vocabulary.write_text("\n".join(TOKENS))
    tfhub.export_model(
        str(tmp_path / "hub"),
        bert_config=config,
        model_checkpoint_path=write(weights, tmp_path / "ours"),
        with_mlm=mlm,
        vocab_file=str(vocabulary),
        do_lower_case=mlm,
    )
    (tmp_path / "hub" / "saved_model.pb").write_bytes(b"not a graph")
    with open_source(str(tmp_path / "hub")) as source:
        found = source.weights
        expected = {name: value for name, value in values(weights).items() if not name.startswith("cls.seq")}
        assert_same_tensors(found, expected)
        default = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        assert found.config == dataclasses.replace(ONE_LAYER, **default)
        assert found.kind == ("BertForMaskedLM" if mlm else "BertModel")
        assert found.left_out == {"do_lower_case/.ATTRIBUTES/VARIABLE_VALUE": "it says how text is read"}
        assert (source.kind, source.vocabulary.tokens) == ("saved-model", TOKENS)
        assert (source.lower_case, source.strip_accents) == (mlm, None)
        assert source.case_known_from == "by do_lower_case of the SavedModel"


def test_a_saved_model_without_variables_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with (
        pytest.raises(
            InputError, match=r"variables/variables.index: cannot be read: No such file or directory; expected"
        ),
        open_source(str(tmp_path)),
    ):
        pass
