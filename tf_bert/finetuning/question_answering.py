"""Answers as spans of a text (SQuAD 1.1 and 2.0)."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, ClassVar

import numpy as np

from tf_bert.config import BertConfig, SpanConfig, from_dict, to_dict
from tf_bert.errors import InputError
from tf_bert.finetuning.family import Outputs
from tf_bert.finetuning.files_of_splits import find_split_file
from tf_bert.finetuning.metrics import Metrics
from tf_bert.finetuning.objectives import SpanObjective
from tf_bert.finetuning.packing import Encoded
from tf_bert.finetuning.squad import Question, read_squad
from tf_bert.finetuning.squad_decoding import Prediction, decode_answers
from tf_bert.finetuning.squad_metric import evaluate_v1, evaluate_v2
from tf_bert.finetuning.squad_windows import SquadWindow, make_squad_windows
from tf_bert.finetuning.tables import read_lines
from tf_bert.models.classification import BertForQuestionAnswering
from tf_bert.tokenization.tokenizer import Tokenizer

_FILES = {
    "train": ("train-v1.1.json", "train-v2.0.json", "train.json"),
    "dev": ("dev-v1.1.json", "dev-v2.0.json", "dev.json"),
    "test": ("test.json", "dev-v1.1.json", "dev-v2.0.json", "dev.json"),
}
_TOLD = 3  # answers in a prediction


@dataclasses.dataclass(frozen=True)
class QuestionFamily:
    """A `Family` of questions.

    Args:
      has_impossible: whether questions may have no answer (SQuAD 2.0).
      span: lengths and threshold.
    """

    has_impossible: bool = False
    span: SpanConfig = dataclasses.field(default_factory=SpanConfig)

    name: ClassVar[str] = "SQuAD"
    labels: ClassVar[tuple[str, ...]] = ()
    problem_type: ClassVar[str | None] = None
    of_tokens: ClassVar[bool] = True
    dev_splits: ClassVar[tuple[str, ...]] = ("dev",)
    primary_metric: ClassVar[tuple[str, bool]] = ("f1", True)
    objective: ClassVar[SpanObjective] = SpanObjective()

    @staticmethod
    def of_data(path: str, span: SpanConfig, notify: Any) -> "QuestionFamily":
        """The family of a training file, whose doubtful answers `notify` is told of."""
        data = read_squad(find_split_file(path, "train", _FILES, "SQuAD"))
        for note in data.notes:
            notify(note)
        return QuestionFamily(data.has_impossible, span)

    @property
    def null_threshold(self) -> float | None:
        """None where an answer has to be given."""
        return self.span.null_threshold if self.has_impossible else None

    def settings(self) -> dict[str, Any]:
        """See `Family.settings`."""
        return {"family": "question_answering", "has_impossible": self.has_impossible, "span": to_dict(self.span)}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> "QuestionFamily":
        """The family that `settings` told of."""
        return cls(bool(values["has_impossible"]), from_dict(SpanConfig, values["span"], where="span"))

    def make_model(self, config: BertConfig, precision: str, dropout_seed: int) -> BertForQuestionAnswering:
        """A model of starts and ends."""
        return BertForQuestionAnswering(config, precision, dropout_seed=dropout_seed)

    def read(self, path: str, split: str) -> list[Question]:
        """The questions of a file or of the directory of SQuAD's files; raises as `read_squad` does."""
        return list(read_squad(find_split_file(path, split, _FILES, self.name)).questions)

    def read_lines(self, stream: IO[bytes], name: str) -> Iterator[Question]:
        """A question and its context with a tab between them, or as JSON with the keys `question` and `context`."""
        for number, line in read_lines(stream, name):
            place = f"{name}: line {number}"
            if line.startswith("{"):
                try:
                    values = json.loads(line)
                    fields = [values["question"], values["context"]]
                except (ValueError, KeyError, TypeError):
                    fields = []
            else:
                fields = line.split("\t")
            if len(fields) != 2 or not all(isinstance(field, str) and field.strip() for field in fields):
                raise InputError(
                    f"{place}: expected a question and its context with a tab between, or a JSON object with the keys "
                    "question and context"
                )
            yield Question(str(number), *fields)

    def encode(
        self, examples: Sequence[Question], tokenizer: Tokenizer, max_seq_length: int, with_targets: bool
    ) -> tuple[Encoded, list[SquadWindow]]:
        """The windows of all questions; with targets, int32 `start_positions` and `end_positions` [windows]."""
        span = self.span
        windows = make_squad_windows(
            examples, tokenizer, max_seq_length, span.max_query_length, span.doc_stride, for_training=with_targets
        )
        names = ("start_positions", "end_positions")
        positions = {
            name: np.array([getattr(window, name.removesuffix("s")) for window in windows], np.int32) for name in names
        }
        firsts = np.array([window.context_begin for window in windows], np.int32)
        ids = [window.input_ids for window in windows]
        return Encoded.of(ids, firsts, positions if with_targets else {}), windows

    def decode(
        self, examples: Sequence[Question], outputs: Outputs, context: Sequence[SquadWindow]
    ) -> list[dict[str, Any]]:
        """`id`, `answer` (empty: none), its `probability`, `start` and `end`, and the best `answers`."""
        predictions = decode_answers(
            examples,
            context,
            [output["start_logits"] for output in outputs],
            [output["end_logits"] for output in outputs],
            self.span.n_best_size,
            self.span.max_answer_length,
            self.null_threshold,
        )
        return [_tell(prediction) for prediction in predictions]

    def evaluate(self, examples: Sequence[Question], predictions: Iterable[Mapping[str, Any]]) -> Metrics:
        """Exact match and F1 in per cent, as the official script of the version defines them."""
        told = list(predictions)
        gold = {question.id: [answer.text for answer in question.answers] for question in examples}
        if self.null_threshold is None:
            return Metrics(evaluate_v1(gold, {prediction["id"]: prediction["answer"] for prediction in told}), ())
        texts = {prediction["id"]: prediction["best_text"] for prediction in told}
        null = {prediction["id"]: prediction["null_score_difference"] for prediction in told}
        return Metrics(evaluate_v2(gold, texts, null, self.null_threshold), ())


def _tell(prediction: Prediction) -> dict[str, Any]:
    answer = prediction.answer
    told: dict[str, Any] = {
        "id": prediction.id,
        "answer": answer.text,
        "probability": answer.probability,
        "start": answer.start,
        "end": answer.end,
        "answers": [
            {"text": candidate.text, "probability": candidate.probability}
            for candidate in prediction.candidates[:_TOLD]
        ],
    }
    if prediction.null_score_difference is not None:
        told |= {"best_text": prediction.best_text, "null_score_difference": prediction.null_score_difference}
    return told
