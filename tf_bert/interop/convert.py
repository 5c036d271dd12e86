"""`tf-bert convert`: weights from any source into the files of another tool."""

from collections.abc import Iterator
from pathlib import Path

from tf_bert import __version__
from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_directory, write_json
from tf_bert.interop.source import FORMATS, open_source, write_weights
from tf_bert.interop.vocabulary import change_vocabulary, with_vocabulary
from tf_bert.models.directory import LINEAGE_FILE
from tf_bert.models.weights import left_out_lines
from tf_bert.tokenization.tokenizer import load_vocabulary, save_tokenizer


def convert(source: str, dest: str, to: str, vocab: str | None = None) -> Iterator[str]:
    """Converts a source; yields lines that say what was written, changed and left out.

    Args:
      source: what `open_source` takes.
      dest: a new directory.
      to: one of `FORMATS`.
      vocab: a vocabulary file to put in the place of the source's; see `change_vocabulary`.

    Raises:
      UsageError: if `to` is not known, or `dest` holds files.
      InputError: if the source is damaged, or the format cannot hold what it has.
    """
    if to not in FORMATS:
        raise UsageError(f"--to: found '{to}', expected one of {', '.join(FORMATS)}")
    directory = Path(dest)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{dest}: is there already; choose a new directory")
    with open_source(source) as opened:
        weights, vocabulary = opened.weights, opened.vocabulary
        if vocab is not None:
            if vocabulary is None:
                raise InputError(f"{source}: has no vocabulary, so --vocab cannot say which rows to keep")
            change = change_vocabulary(vocabulary, load_vocabulary(Path(vocab)))
            vocabulary = change.new
            yield from change.lines()
            weights = with_vocabulary(weights, change)
        weights.check_tied()
        with atomic_directory(directory) as partial:
            write_weights(weights, partial, to)
            if vocabulary is not None and opened.lower_case is not None:
                save_tokenizer(partial, vocabulary, opened.lower_case, opened.strip_accents)
            write_json(partial / LINEAGE_FILE, {"tf_bert": __version__, "converted_from": opened.lineage()})
        count = sum(len(weights.names_of(part)) for part in weights.parts)
        yield f"{dest}: {weights.kind} with {', '.join(weights.parts)}: {count} tensors as {FORMATS[to]}"
        if vocabulary is None:
            yield f"  without a vocabulary, for {source} has none"
        else:
            case = "uncased" if opened.lower_case else "cased"
            yield f"  {len(vocabulary):,} tokens, {case} ({opened.case_known_from})"
        yield from left_out_lines(weights.left_out)
