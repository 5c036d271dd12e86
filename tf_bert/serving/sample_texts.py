"""Texts in the words of a vocabulary, to try an export with and to warm servers up."""

from tf_bert.tokenization.sentencepiece import SPACE
from tf_bert.tokenization.vocab import MASK, Vocabulary

WARMUP_WORDS = (4, 24, 1000)
"""A short text, one of usual length, and one that is cut."""
_SHORTEST_WORD = 3


def sample_text(vocabulary: Vocabulary, words: int) -> str:
    """So many words, the vocabulary's frequent ones first, over again where it has too few."""
    known = [token.removeprefix(SPACE) for token in vocabulary.tokens]
    known = [word for word in known if word.isalpha() and len(word) >= _SHORTEST_WORD and not word.isupper()]
    known = known or ["text"]
    return " ".join(known[i % len(known)] for i in range(words))


def sample_inputs(names: tuple[str, ...], vocabulary: Vocabulary, words: int, has_mask: bool) -> dict[str, str]:
    """A text for every name; with one `[MASK]` in it if asked for."""
    texts = {name: sample_text(vocabulary, 4 if name == "question" else words) for name in names}
    if has_mask:
        texts = {name: f"{MASK} {text}" for name, text in texts.items()}
    return texts
