"""What is asked about a user: the words, once per user, and who is told the answers."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.semantics.encoders import HashingEncoder
from seqrec.semantics.questions import FraudQuestion
from seqrec.sequences import Sequences

TITLES = ["red lipstick", "blue mascara", "nail file", "hair oil"]
CATALOG = Catalog(pl.DataFrame({"item_id": list("abcd"), "count": [1] * 4, "title": TITLES}))
HISTORIES = Sequences.pack([[0, 2], [3], [0, 2], [1, 0, 3]])


class Reader(HashingEncoder):
    """Remembers what it was given to read."""

    def __init__(self) -> None:
        super().__init__(dim=64)
        self.read: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.read += texts
        return super().encode(texts)


def test_every_user_is_asked_about_by_the_titles_of_what_the_user_has(tmp_path):
    reader = Reader()
    vectors = FraudQuestion(reader, "beauty products", store=str(tmp_path)).about(HISTORIES, CATALOG)
    assert vectors.shape == (4, 64)
    assert torch.equal(vectors[0], vectors[2])  # alike, and read once
    assert len(reader.read) == 3
    assert all("beauty products" in text and "made up" in text and "$" not in text for text in reader.read)
    (of_last,) = [text for text in reader.read if "mascara" in text]
    assert of_last.index("blue mascara") < of_last.index("red lipstick") < of_last.index("hair oil")
    assert "nail file" not in of_last
    norms = vectors @ vectors.T
    assert (norms[0, 1:] < norms[0, 0]).tolist() == [True, False, True]


def test_what_was_read_once_is_not_read_again(tmp_path):
    first = FraudQuestion(Reader(), store=str(tmp_path)).about(HISTORIES, CATALOG)
    reader = Reader()
    with_fakes = Sequences.concat([HISTORIES, Sequences.pack([[2, 1]])])
    again = FraudQuestion(reader, store=str(tmp_path)).about(with_fakes, CATALOG)
    assert torch.equal(again[:4], first)
    assert len(reader.read) == 1
    other = Reader()
    FraudQuestion(other, "groceries", store=str(tmp_path)).about(HISTORIES, CATALOG)
    assert len(other.read) == 3


def test_only_the_newest_of_a_long_history_is_told(tmp_path):
    reader = Reader()
    FraudQuestion(reader, window=2, store=str(tmp_path)).about(Sequences.pack([[0, 1, 2, 3]]), CATALOG)
    (text,) = reader.read
    assert "lipstick" not in text
    assert "mascara" not in text
    assert text.index("nail file") < text.index("hair oil")


def test_a_prompt_of_ones_own_is_asked_instead(tmp_path):
    prompt = tmp_path / "mine.txt"
    prompt.write_text("You judge $domain.\n---\nIs this odd? $history")
    reader = Reader()
    FraudQuestion(reader, prompt=str(prompt), store=str(tmp_path / "store")).about(Sequences.pack([[3]]), CATALOG)
    assert reader.read == ["You judge goods and media.\n\nIs this odd? - hair oil"]


def test_without_words_nothing_can_be_asked(tmp_path):
    bare = Catalog(CATALOG.table.drop("title"))
    with pytest.raises(ValueError, match="neither titles nor categories"):
        FraudQuestion(Reader(), store=str(tmp_path)).about(HISTORIES, bare)


def test_the_prompt_has_a_version_of_its_own():
    question = FraudQuestion(Reader())
    assert question.prompt.version.startswith("fraud-1@")
    assert Path(question.store) == Path("data/semantics")
