"""The vocabulary report: numbers counted by hand, the rule at its limits, the table, the picture, and bad input."""

import dataclasses
import subprocess
import sys

import pytest
import tensorflow as tf

from tf_bert import cli
from tf_bert.errors import InputError
from tf_bert.tokenization.report import BrokenWord, Fit, VocabReport, report_on
from tf_bert.tokenization.report_plot import draw_vocab_report
from tf_bert.tokenization.report_table import format_report, labels, recommend, rule, warnings_of
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

OWN = Vocabulary((*SPECIAL_TOKENS, "the", "renal", "cell", "##s", ".", "grow", "肾"), "own.txt")
PUBLIC = Vocabulary((*SPECIAL_TOKENS, "the", "re", "##nal", "cells", ".", "g", "##row", "##s", "x", "y"), "public.txt")
TEXTS = ["The renal cells grow.\n\nRenal cells: 肾", "grow  the RÉNAL cells."]
# the 2, renal 3, cells 3, grow 2, "." 2, ":" 1, 肾 1: 14 words, cut
# own: whole but for cell ##s (3) and [UNK] for ":" (1);  public: re ##nal (3), g ##row (2), [UNK] for ":" and 肾 (2).


def tokenizers(own_is_lower=True, public_is_lower=True):
    return [WordPieceTokenizer(OWN, own_is_lower), WordPieceTokenizer(PUBLIC, public_is_lower)]


def fit(name="public.txt", tokens=100, unknown=0, size=30522, **others):
    """Of 100 words."""
    fields = {"lower_case": True, "used": 50, "capitals": 0, "split": 10, **others}
    return Fit(name=name, size=size, words=100, tokens=tokens, unknown=unknown, **fields)


def write_inputs(directory):
    OWN.save(directory / "own.txt")
    PUBLIC.save(directory / "public.txt")
    (directory / "corpus.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")


def test_a_small_text_is_counted_as_by_hand():
    own, public = report_on(TEXTS, tokenizers(), num_broken=5).fits
    assert (own.words, own.tokens, own.unknown, own.split) == (14, 17, 1, 3)
    assert (public.words, public.tokens, public.unknown, public.split) == (14, 19, 2, 5)
    assert (own.size, own.used) == (12, 8)  # all but [PAD] [CLS] [SEP] [MASK]
    assert (public.size, public.used) == (15, 8)  # not these, nor ##s x y
    assert own.tokens_per_word == 17 / 14 and public.unknown_share == 2 / 14 and public.split_share == 5 / 14
    assert (own.name, own.lower_case, public.used_share) == ("own.txt", True, 8 / 15)


def test_words_are_broken_worst_by_count_times_pieces_and_unknown_ones_by_their_characters():
    texts = ["cells " * 4 + "renal " * 3 + ": " * 7 + "qqqqq 肾肾"]
    own, public = report_on(texts, tokenizers(), num_broken=10).broken
    assert own == (
        BrokenWord("cells", 4, (("cell", "##s"), ("cells",))),  # 4 x 2
        BrokenWord(":", 7, (("[UNK]",), ("[UNK]",))),  # 7 x 1
        BrokenWord("qqqqq", 1, (("[UNK]",), ("[UNK]",))),  # 1 x 5
    )
    assert [(broken.word, broken.count) for broken in public] == [(":", 7), ("renal", 3), ("qqqqq", 1), ("肾", 2)]
    assert public[1].pieces == (("renal",), ("re", "##nal"))
    assert report_on(texts, tokenizers(), num_broken=1).broken == (own[:1], public[:1])


def test_words_that_are_broken_alike_come_in_alphabetical_order():
    (broken,) = report_on(["cells dcells acells"], [WordPieceTokenizer(PUBLIC, True)], num_broken=3).broken
    assert [word.word for word in broken] == ["acells", "dcells"]


def test_a_cased_vocabulary_beside_an_uncased_one_counts_in_its_own_case_and_lists_words_with_theirs():
    own, public = tokenizers(own_is_lower=True, public_is_lower=False)
    report = report_on(["Renal renal Cells"], [own, public], num_broken=5)
    uncased, cased = report.fits
    assert (uncased.words, uncased.tokens, uncased.unknown) == (3, 4, 0)
    assert (cased.words, cased.tokens, cased.unknown) == (3, 4, 2)  # Renal and Cells are unknown
    assert report.broken == (
        (BrokenWord("Cells", 1, (("cell", "##s"), ("[UNK]",))),),
        (
            BrokenWord("Cells", 1, (("cell", "##s"), ("[UNK]",))),
            BrokenWord("Renal", 1, (("renal",), ("[UNK]",))),
            BrokenWord("renal", 1, (("renal",), ("re", "##nal"))),
        ),
    )


def test_sums_equal_those_of_the_whole_texts_also_when_rare_words_are_forgotten(documents, vocabulary, lower_case):
    """The tokens of the real excerpt, text by text, against different words with their counts."""
    tokenizer = WordPieceTokenizer(vocabulary, lower_case)
    rows = [tokenizer.tokenize(tf.constant([text])).flat_values.numpy() for text in documents]
    whole = report_on(documents, [tokenizer], num_broken=20)
    assert whole.fits[0].tokens == sum(map(len, rows))
    assert whole.fits[0].unknown == sum(int((row == vocabulary.unk_id).sum()) for row in rows)
    assert whole.fits[0].used == len(set().union(*map(set, rows)))

    bounded = report_on(iter(documents), [tokenizer], num_broken=20, max_different_words=4000)
    assert bounded.fits == whole.fits
    assert {word.word for word in bounded.broken[0][:5]} <= {word.word for word in whole.broken[0]}


def test_words_equal_those_of_the_original_basic_tokenizer(documents, lower_case, vocabulary):
    reference = pytest.importorskip("official.nlp.tools.tokenization", reason="extra `interop` is not installed")
    basic = reference.BasicTokenizer(do_lower_case=lower_case)
    texts = documents[:30]
    (found,) = report_on(texts, [WordPieceTokenizer(vocabulary, lower_case)], num_broken=1).fits
    assert found.words == sum(len(basic.tokenize(text)) for text in texts)


def test_the_rule_at_its_limits():
    """500 million words; 1.15 times the tokens; 1% [UNK]."""
    own = fit("own.txt", tokens=100)
    limits = [
        (114, 0, 500e6, False),
        (115, 0, 500e6, True),
        (115, 0, 499e6, False),
        (100, 1, 500e6, True),
        (100, 1, 499e6, False),
        (100, 0, 9e9, False),
    ]
    for tokens, unknown, corpus_words, from_scratch in limits:
        found = recommend([own, fit(tokens=tokens, unknown=unknown)], corpus_words)
        assert found.from_scratch is from_scratch, (tokens, unknown, corpus_words)
    assert recommend([fit(tokens=125)], 500e6).from_scratch
    assert not recommend([fit(tokens=124)], 500e6).from_scratch
    assert (
        "500 million words" in rule() and "1.15 times" in rule() and "1.25 tokens a word" in rule() and "1%" in rule()
    )


def test_unknown_words_count_against_the_public_vocabulary_only_beyond_those_of_the_own_one():
    assert not recommend([fit("own.txt", unknown=3), fit(unknown=3)], 1e9).from_scratch
    assert recommend([fit("own.txt", unknown=3), fit(unknown=5)], 1e9).from_scratch


def test_verdicts_say_what_to_do_and_why():
    scratch = recommend([fit("own.txt"), fit(tokens=130)], 2e9)
    assert scratch.verdict == "an own vocabulary, and training from scratch"
    assert scratch.reasons == (
        "the corpus has about 2,000 million words; the public vocabulary has 1.30 times the own vocabulary's tokens "
        "and +0.00% of the words as [UNK]"
    )
    assert recommend([fit(tokens=130)], 2e9).verdict.endswith("`tf-bert vocab train` and compare it by --other_vocab")
    small = recommend([fit(tokens=130)], 2.34e6)
    assert small.verdict == "continue from the public checkpoint"
    assert small.reasons.startswith("the corpus has about 2.3 million words; the public vocabulary has 1.30 tokens a w")
    assert "another one, whose vocabulary has this corpus's characters" in recommend([fit(unknown=5)], 1e6).verdict


def test_what_makes_a_comparison_doubtful_is_said():
    assert warnings_of([fit("own.txt", size=30000), fit()]) == []
    (sizes,) = warnings_of([fit("own.txt", size=8000), fit()])
    assert "8,000 and 30,522 tokens" in sizes and sizes.endswith("--vocab_size 30522")
    (cased,) = warnings_of([fit("cased.txt", capitals=9000)])
    assert cased.startswith("cased.txt is read as uncased, but 9,000 of its tokens have capitals")
    (uncased,) = warnings_of([fit("uncased.txt", lower_case=False)])
    assert uncased.startswith("uncased.txt is read as cased, but none of its tokens has capitals")


def test_the_table_shows_every_number():
    lines = format_report(report_on(TEXTS, tokenizers(), num_broken=2), corpus_share=1.0).splitlines()
    assert lines[:24] == [
        "Read: the whole corpus",
        "",
        "                          own.txt  public.txt",
        "tokens in the vocabulary       12          15",
        "case                      uncased     uncased",
        "words                          14          14",
        "tokens                         17          19",
        "tokens per word             1.214       1.357",
        "words that are [UNK]        7.14%      14.29%",
        "words split                21.43%      35.71%",
        "vocabulary that occurs      66.7%       53.3%",
        "",
        "Words that own.txt breaks worst, by count times pieces:",
        "count  word   own.txt   public.txt",
        "    3  cells  cell ##s  cells",
        "    1  :      [UNK]     [UNK]",
        "",
        "Words that public.txt breaks worst, by count times pieces:",
        "count  word   own.txt  public.txt",
        "    3  renal  renal    re ##nal",
        "    2  grow   grow     g ##row",
        "",
        "Recommendation: continue from a public checkpoint, but from another one, whose vocabulary has this corpus's",
        "  characters.",
    ]
    assert max(map(len, lines)) <= 110


def test_a_vocabulary_that_breaks_nothing_a_sample_long_words_and_equal_file_names():
    whole = VocabReport((fit("a/vocab.txt"), fit("b/vocab.txt")), ((), (BrokenWord("w" * 40, 1, (("u" * 80,),) * 2),)))
    lines = format_report(whole, corpus_share=0.0512).splitlines()
    assert lines[0] == "Read: a sample, about 5.1% of the corpus"
    assert lines[lines.index("Words that a/vocab.txt breaks worst, by count times pieces:") + 1] == "none"
    assert f"    1  {'w' * 23}…  {'u' * 43}…  {'u' * 43}…" in lines
    assert labels(whole.fits) == ["a/vocab.txt", "b/vocab.txt"]


@pytest.mark.parametrize("num_vocabularies", [1, 2])
def test_the_picture_is_one_that_others_can_read(num_vocabularies, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    report = report_on(TEXTS, tokenizers()[:num_vocabularies], num_broken=5)
    path = tmp_path / "report.png"
    assert draw_vocab_report(report, path) == str(path)
    with image.open(path) as picture:
        assert picture.format == "PNG" and picture.size == (1650, 550)
        # The bars of every vocabulary, in matplotlib's first two colours, are there.
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert ((31, 119, 180) in colours) and ((255, 127, 14) in colours) == (num_vocabularies == 2)
    nothing_broken = dataclasses.replace(report, broken=((),) * num_vocabularies)
    assert draw_vocab_report(nothing_broken, path) == str(path)


def test_without_matplotlib_the_table_comes_all_the_same(tmp_path):
    write_inputs(tmp_path)
    script = (
        "import sys; sys.modules['matplotlib'] = None; from tf_bert import cli; "
        "sys.exit(cli.main(['vocab', 'report', '--input', 'corpus.txt', '--vocab', 'own.txt']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert "tokens per word             1.214" in done.stdout
    assert done.stdout.endswith("\nPicture: not drawn: matplotlib is missing; pip install 'tf_bert[plots]'\n")


def test_the_command_prints_the_table_and_writes_the_picture(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["vocab", "report", "--input", "corpus.txt", "--vocab", "own.txt", "--other_vocab", "public.txt"]
    assert cli.main([*words, "--words", "2", "--output_png", "report.png"]) == 0
    expected = format_report(report_on(TEXTS, tokenizers(), num_broken=2), corpus_share=1.0)
    assert capsys.readouterr().out == f"{expected}\n\nPicture: report.png\n"
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*words, "--words", "2", "--output_png", "null"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert not (tmp_path / "vocab_report.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--vocab", "absent.txt"], 1, "absent.txt: cannot be read: No such file or directory; expected a vocabulary"),
        (["--vocab", "own.txt", "--other_vocab", "absent.txt"], 1, "absent.txt: cannot be read: No such file"),
        (["--vocab", "corpus.txt"], 1, "corpus.txt: no line is [PAD], [UNK], [CLS], [SEP], [MASK]; expected"),
        (
            ["--vocab", "own.txt", "--other_vocab", "./own.txt"],
            2,
            "vocab own.txt and other_vocab ./own.txt are the same 12 tokens; expected two vocabularies to compare: "
            "name another one, or leave other_vocab out",
        ),
        (["--vocab", "own.txt", "--input", "empty.txt"], 1, "empty.txt: is empty, expected text"),
        (["--vocab", "own.txt", "--input", "blank.txt"], 1, "blank.txt: no document was found; check input and format"),
        (
            ["--vocab", "own.txt", "--input", "joiners.txt"],
            1,
            "the corpus holds no words, only white space and control",
        ),
        (["--vocab", "own.txt", "--output_png", "no/r.png"], 1, "no/r.png: its directory no does not exist; make it"),
        (["--vocab", "own.txt", "--words", "0"], 2, "words: found '0': Input should be greater than or equal to 1"),
        (
            ["--vocab", "own.txt", "--max_megabytes", "-1"],
            2,
            "max_megabytes: found '-1': Input should be greater than 0",
        ),
    ],
)
def test_a_mistake_is_one_line(words, code, message, tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "joiners.txt").write_text("\u200b\u200d\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = words if "--input" in words else [*words, "--input", "corpus.txt"]
    assert cli.main(["vocab", "report", *given]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("tf-bert vocab report: ") and message in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert not list(tmp_path.glob("*.png*"))


def test_no_texts_are_refused():
    with pytest.raises(InputError, match="the corpus holds no words"):
        report_on([], tokenizers(), num_broken=1)
