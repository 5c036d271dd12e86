"""A vocabulary report for people: what to do, by a rule with its numbers, and the terminal table."""

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from tf_bert.tokenization.report import BrokenWord, Fit, VocabReport

MIN_CORPUS_WORDS = 500_000_000
"""Training every weight anew wants so many words.

Published encoders with a vocabulary of their own saw this many or more: CamemBERT 4 GB of text, where 138 GB were no
better (Martin et al. 2020), SciBERT 3.2 billion tokens (Beltagy et al. 2019), PubMedBERT 3.1 billion words (Gu et al.
2021).
"""
MIN_TOKEN_RATIO = 1.15
"""A public vocabulary that needs so many times the own one's tokens fits badly: rows hold that much less text."""
MAX_TOKENS_PER_WORD = 1.25
"""The same without an own vocabulary to compare with; the original uncased one makes 1.11 of English Wikipedia."""
MAX_UNKNOWN_SHARE = 0.01
"""More `[UNK]` than this, beyond the own vocabulary's, is text that no training of the checkpoint brings back."""

_WORD_WIDTH = 24
_PIECES_WIDTH = 44
_LINE_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to do about a corpus."""

    from_scratch: bool
    """True: an own vocabulary, and all weights from scratch. False: continue from the public checkpoint."""
    verdict: str
    reasons: str


def recommend(fits: Sequence[Fit], corpus_words: float) -> Recommendation:
    """Own vocabulary or public checkpoint, by the rule that `rule` states.

    Args:
      fits: of the own and the public vocabulary, or of the public one alone.
      corpus_words: words of the whole corpus.
    """
    public, own = fits[-1], fits[0] if len(fits) > 1 else None
    lost = public.unknown_share - (own.unknown_share if own else 0.0)
    fragmented = (
        public.tokens_per_word / own.tokens_per_word >= MIN_TOKEN_RATIO
        if own
        else public.tokens_per_word >= MAX_TOKENS_PER_WORD
    )
    from_scratch = corpus_words >= MIN_CORPUS_WORDS and (fragmented or lost >= MAX_UNKNOWN_SHARE)
    if from_scratch:
        verdict = "an own vocabulary, and training from scratch"
        if not own:
            verdict += "; train it with `tf-bert vocab train` and compare it by --other_vocab"
    elif lost >= MAX_UNKNOWN_SHARE:
        verdict = (
            "continue from a public checkpoint, but from another one, whose vocabulary has this corpus's characters"
        )
    else:
        verdict = "continue from the public checkpoint"
    return Recommendation(from_scratch, verdict, _reasons(public, own, lost, corpus_words))


def _reasons(public: Fit, own: Fit | None, lost: float, corpus_words: float) -> str:
    if own:
        tokens = f"{public.tokens_per_word / own.tokens_per_word:.2f} times the own vocabulary's tokens"
        unknown = f"{lost:+.2%} of the words as [UNK]"
    else:
        tokens = f"{public.tokens_per_word:.2f} tokens a word"
        unknown = f"{lost:.2%} of the words as [UNK]"
    return f"the corpus has about {_millions(corpus_words)} words; the public vocabulary has {tokens} and {unknown}"


def rule() -> str:
    """The rule in words and numbers."""
    return (
        f"an own vocabulary, and so all weights from scratch, if the corpus has {_millions(MIN_CORPUS_WORDS)} words or "
        f"more, and the public vocabulary has {MIN_TOKEN_RATIO} times the own one's tokens or more (no own one yet: "
        f"{MAX_TOKENS_PER_WORD} tokens a word or more) or {MAX_UNKNOWN_SHARE:.0%} or more of the words as [UNK] beyond "
        "the own one's; else continue from a public checkpoint"
    )


def warnings_of(fits: Sequence[Fit]) -> list[str]:
    """What makes the numbers or their comparison doubtful."""
    found = []
    for name, fit in zip(labels(fits), fits, strict=True):
        if fit.lower_case and fit.capitals > 0.01 * fit.size:
            found.append(
                f"{name} is read as uncased, but {fit.capitals:,} of its tokens have capitals; if it is cased, set its "
                "lower_case to false"
            )
        if not fit.lower_case and not fit.capitals:
            found.append(
                f"{name} is read as cased, but none of its tokens has capitals; if it is uncased, set its lower_case "
                "to true"
            )
    if len(fits) == 2 and max(fit.size for fit in fits) > 1.25 * min(fit.size for fit in fits):
        found.append(
            f"the vocabularies have {fits[0].size:,} and {fits[1].size:,} tokens, and a larger one splits less; "
            f"compare with an own one of --vocab_size {fits[1].size}"
        )
    return found


def format_report(report: VocabReport, corpus_share: float) -> str:
    """The report as text of several lines, without a last line break.

    Args:
      report: the numbers.
      corpus_share: the part of the corpus that was read, above 0 to 1.
    """
    fits = report.fits
    names = labels(fits)
    seen = "the whole corpus" if corpus_share >= 1.0 else f"a sample, about {100 * corpus_share:.2g}% of the corpus"
    recommendation = recommend(fits, fits[-1].words / corpus_share)
    rows: list[tuple[str, ...]] = [
        ("", *names),
        ("tokens in the vocabulary", *(f"{fit.size:,}" for fit in fits)),
        ("case", *("uncased" if fit.lower_case else "cased" for fit in fits)),
        ("words", *(f"{fit.words:,}" for fit in fits)),
        ("tokens", *(f"{fit.tokens:,}" for fit in fits)),
        ("tokens per word", *(f"{fit.tokens_per_word:.3f}" for fit in fits)),
        ("words that are [UNK]", *(f"{fit.unknown_share:.2%}" for fit in fits)),
        ("words split", *(f"{fit.split_share:.2%}" for fit in fits)),
        ("vocabulary that occurs", *(f"{fit.used_share:.1%}" for fit in fits)),
    ]
    lines = [f"Read: {seen}", "", *_table(rows, left=1)]
    for name, broken in zip(names, report.broken, strict=True):
        lines += ["", f"Words that {name} breaks worst, by count times pieces:"]
        lines += _table([("count", "word", *names), *map(_row, broken)], left=5, skip=1) if broken else ["none"]
    lines += ["", *_paragraph(f"Recommendation: {recommendation.verdict}.")]
    lines += [*_paragraph(f"Why: {recommendation.reasons}."), *_paragraph(f"Rule: {rule()}.")]
    for warning in warnings_of(fits):
        lines += _paragraph(f"Mind: {warning}.")
    return "\n".join(lines)


def labels(fits: Sequence[Fit]) -> list[str]:
    """Short names of the vocabularies: their files' names, or the paths where these are equal."""
    names = [Path(fit.name).name for fit in fits]
    return names if len(set(names)) == len(names) else [fit.name for fit in fits]


def _row(broken: BrokenWord) -> tuple[str, ...]:
    pieces = (_clipped(" ".join(pieces), _PIECES_WIDTH) for pieces in broken.pieces)
    return (f"{broken.count:,}", _clipped(broken.word, _WORD_WIDTH), *pieces)


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(rows: Sequence[tuple[str, ...]], left: int, skip: int = 0) -> Iterable[str]:
    """Columns two spaces apart; those from `skip` up to `left` are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            f"{cell:<{width}}" if skip <= number < left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _millions(words: float) -> str:
    return f"{words / 1e6:,.0f} million" if words >= 10e6 else f"{words / 1e6:.2g} million"
