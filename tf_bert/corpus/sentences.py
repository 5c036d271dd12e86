"""Documents -> sentences."""

import dataclasses
import difflib

import punkt

from tf_bert.config import CorpusConfig
from tf_bert.errors import UsageError

# The library's pattern of dashes and ellipses, and one that matches the same. Its alternatives begin with plain
# characters, so that Python's re skips from one to the next; finding sentences takes three quarters of the time.
_RUNS_OF_PUNCTUATION = {
    r"(?:\-{2,}|\.{2,}|(?:\.\s){2,}\.)": r"(?:--+|\.\.+|\.\s(?:\.\s)+\.)",
}


class SentenceSplitter:
    """Splits text into sentences (Kiss and Strunk 2006), or takes lines as they are.

    Args:
      config: `sentence_splitter` and `language`.

    Raises:
      UsageError: if there is no model for the language.
    """

    def __init__(self, config: CorpusConfig) -> None:
        self._tokenizer = None
        if config.sentence_splitter == "punkt":
            languages = sorted(punkt.available_languages())
            if config.language not in languages:
                near = difflib.get_close_matches(config.language.lower(), languages, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(languages)}"
                raise UsageError(
                    f"language: found '{config.language}', for which there is no sentence model; {hint} "
                    "(or prepare one sentence a line and set sentence_splitter to line)"
                )
            tokenizer = punkt.tokenizer_for(config.language)
            pattern = tokenizer.rules.multi_char_punct_pattern
            rules = dataclasses.replace(
                tokenizer.rules, multi_char_punct_pattern=_RUNS_OF_PUNCTUATION.get(pattern, pattern)
            )
            self._tokenizer = punkt.PunktSentenceTokenizer(tokenizer.params, rules=rules)

    def split(self, text: str) -> list[str]:
        """Sentences in order, stripped, none empty. A line break always ends a sentence."""
        lines = [line.strip() for line in text.split("\n")]
        if self._tokenizer is None:
            return [line for line in lines if line]
        return [sentence for line in lines if line for sentence in self._tokenizer.tokenize(line)]
