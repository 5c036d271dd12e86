"""A bounded sample of a corpus, spread over its files."""

from collections.abc import Iterator

from tf_bert.config import CorpusConfig
from tf_bert.corpus.blocks import BLOCK_BYTES, OnBytes, Part
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import list_input_files, read_part
from tf_bert.errors import InputError

# Shorter pieces of a file would mean opening thousands of files for a few lines each.
_SLICE_BYTES = 4 << 20


class CorpusSample:
    """Texts from the beginnings of files, each file in proportion to its size; the whole corpus if that fits.

    Of many small files some are read whole and the others are passed over.

    Args:
      config: the corpus.
      max_bytes: UTF-8 bytes of text, at most.

    Raises:
      InputError: if a name in `config.input` matches nothing or a file is empty.
    """

    def __init__(self, config: CorpusConfig, max_bytes: int) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._sizes = {path: path.stat().st_size for path in list_input_files(config)}
        self.input_bytes = sum(self._sizes.values())
        """Bytes of all input files."""
        self.report = ReadReport(config.max_skipped_documents)
        """What came of reading so far."""
        self.read_bytes = 0
        """Bytes of input behind the texts given so far, exact to a block of 256 KiB for every file not read whole."""

    @property
    def share(self) -> float:
        """The part of the input that was read, from above 0 to 1."""
        return self.read_bytes / self.input_bytes

    def texts(self, on_bytes: OnBytes | None = None) -> Iterator[str]:
        """Texts of documents, in the order of their files; the last one of a file may be cut.

        Args:
          on_bytes: called with the number of input bytes read since the last call.

        Raises:
          InputError: if a file is damaged or not of its format, too many documents cannot be read, or none is found.
        """

        def count(read: int) -> None:
            self.read_bytes += read
            if on_bytes:
                on_bytes(read)

        first = min(_SLICE_BYTES, self._max_bytes)
        allowance = float(first)
        per_input_byte = (self._max_bytes - first) / self.input_bytes
        for path, size in self._sizes.items():
            allowance += per_input_byte * size
            if allowance < min(size, first):
                continue  # what this file would have been allowed goes to the next ones
            before = self.read_bytes
            for document in read_part(Part(path), self._config, self.report, count):
                text = document.text.encode()[: int(allowance)]
                yield text.decode(errors="ignore")
                allowance -= len(text)
                if allowance < 1:
                    # The block that the last document came from is not counted before the next one is read.
                    self.read_bytes = min(before + size, self.read_bytes + BLOCK_BYTES)
                    break
        if not self.report.documents:
            raise InputError(f"{', '.join(self._config.input)}: no document was found; check input and format")
