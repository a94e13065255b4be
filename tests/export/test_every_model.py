"""A bundle answers as evaluation does, whatever the backbone and the scorer, and so do the programs in it."""

import importlib
import inspect
import pkgutil
import zipfile

import onnxruntime
import polars as pl
import pytest
import torch

from seqrec import backbones
from seqrec.backbones.base import Backbone
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.programs import Format, QueryEncoder, compare, torch_program
from seqrec.export.retriever import Retriever
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

DIM, LENGTH, N_ITEMS = 8, 12, 150
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "count": [1] * N_ITEMS}))


def part(path, **arguments):
    return {"class_path": f"seqrec.{path}", "init_args": arguments}


def backbone(path, **arguments):
    return part(f"backbones.{path}", dim=DIM, **arguments)


HSTU_POSITIONS = [part("positions.relative.RelativeBias"), part("positions.time_bias.TimeBias")]
LEARNED = part("positions.learned.LearnedPosition", dim=DIM, max_length=LENGTH + 1)
MODELS = {
    "SASRec": {"backbone": backbone("sasrec.SASRec"), "position": LEARNED},
    "LiGR": {"backbone": backbone("ligr.LiGR", position=part("positions.rotary.RotaryPosition"))},
    "LiGR, CAPE": {"backbone": backbone("ligr.LiGR", position=part("positions.contextual.CAPE", max_length=LENGTH))},
    "SASRec, CAPE of free gates": {
        "backbone": backbone(
            "sasrec.SASRec", position=part("positions.contextual.CAPE", max_length=4, mask_gates=False)
        )
    },
    "HSTU": {"backbone": backbone("hstu.HSTU", position=part("positions.stacked.Stacked", positions=HSTU_POSITIONS))},
    "Mamba4Rec": {"backbone": backbone("mamba4rec.Mamba4Rec", d_state=4, init_std=0.3)},
    "Mamba4Rec, Mamba-2": {"backbone": backbone("mamba4rec.Mamba4Rec", d_state=4, block="mamba2", init_std=0.3)},
    "GRU4Rec": {"backbone": backbone("gru4rec.GRU4Rec", n_layers=2)},
    "SIGMA": {"backbone": backbone("sigma.SIGMA", d_state=4, init_std=0.3)},
    "LoggedSIGMA": {"backbone": backbone("sigma.LoggedSIGMA", d_state=4, init_std=0.3)},
    "CausalSIGMA": {"backbone": backbone("sigma.CausalSIGMA", d_state=4, init_std=0.3)},
    "HMamba": {"backbone": backbone("hmamba.HMamba", d_state=4)},
    "BERT4Rec": {"backbone": backbone("bert4rec.BERT4Rec", init_std=0.3), "position": LEARNED},
    "Compressed": {"backbone": part("backbones.compressed.Compressed", inner=backbone("sasrec.SASRec"), n_recent=5)},
}
SCORERS = {"Dot": part("scorers.Dot"), "Cosine": part("scorers.Cosine"), "Lorentz": part("scorers.Lorentz")}
MASKED = ("BERT4Rec",)


def recipe(model, scorer="Dot"):
    kind = "masked.MaskedRecommender" if model in MASKED else "sequential.SequentialRecommender"
    embedding = part("embeddings.ids.IdEmbedding", dim=DIM, init_std=1.0)
    return part(f"recommenders.{kind}", embedding=embedding, scorer=SCORERS[scorer], **MODELS[model])


def built(model, scorer="Dot"):
    torch.manual_seed(0)
    return build_recommender(recipe(model, scorer), CATALOG).eval()


def some_histories(n=20, longest=LENGTH):
    draw = torch.Generator().manual_seed(0)
    lengths = [1, 2, longest, *torch.randint(1, longest + 1, (n - 3,), generator=draw).tolist()]
    rows = [torch.randint(N_ITEMS, (length,), generator=draw).tolist() for length in lengths]
    times = [[1_600_000_000 + 70_000 * place + row for place, row in enumerate(history)] for history in rows]
    return rows, times


ASKED_AT = 1_700_000_000


def test_no_backbone_is_forgotten():
    found = set()
    for module in pkgutil.iter_modules(backbones.__path__, "seqrec.backbones."):
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {name for name, kind in classes if issubclass(kind, Backbone) and not inspect.isabstract(kind)}
    tried = {each["backbone"]["class_path"].rpartition(".")[2] for each in MODELS.values()}
    assert found == tried


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_lists_of_a_bundle_are_those_of_the_evaluation(tmp_path, model, scorer):
    recommender = built(model, scorer)
    write_bundle(recommender, tmp_path / "bundle", recipe=recipe(model, scorer), config={}, max_length=LENGTH)
    retriever = Retriever.load(tmp_path / "bundle")
    rows, times = some_histories()
    history = Sequences.pack(rows, times)
    if recommender.reads_asked_at:
        history = history.asking(history.newest, torch.full((len(rows),), ASKED_AT))
    ids = [[CATALOG.ids[row] for row in each] for each in rows]
    for seen in (None, Sequences.pack(rows)):
        own = recommender.recommend(history, 25, seen)
        served = retriever.top_k(ids, 25, seen is not None, times, ASKED_AT)
        assert torch.equal(served.items, own.items)
        assert torch.equal(served.scores, own.scores)
        # The rank that the evaluation gives an item is its place in the list.
        for place in (0, 7, 24):
            asked_at = torch.full((len(rows),), ASKED_AT)
            batch = Batch(torch.arange(len(rows)), history, history.newest, own.items[:, place], asked_at, seen)
            assert (recommender.ranks(batch) == place).all()


EXPORTED = [name for name in MODELS if name != "Compressed"]


@pytest.mark.parametrize("model", EXPORTED)
@torch.no_grad()
def test_programs_answer_as_the_model_for_histories_of_every_length(tmp_path, model):
    recommender, scorer = built(model, "Lorentz"), "Lorentz"
    bundle = tmp_path / "bundle"
    write_bundle(recommender, bundle, recipe=recipe(model, scorer), config={}, max_length=LENGTH, formats=tuple(Format))
    encoder = QueryEncoder(recommender)
    session = onnxruntime.InferenceSession(bundle / "encoder.onnx")
    program = torch.export.load(bundle / "encoder.pt2").module()
    for rows, times in zip(*some_histories(8), strict=True):
        history = Sequences.pack([rows], [times])
        if recommender.reads_asked_at:
            history = history.asking(history.newest, torch.tensor([ASKED_AT]))
        inputs = encoder.inputs(history)
        (expected,) = recommender.queries(history, history.newest)
        torch.testing.assert_close(program(**inputs), expected, rtol=1e-4, atol=1e-4)
        (found,) = session.run(["query"], {name: values.numpy() for name, values in inputs.items()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    # Not a byte of it is a pickle.
    with zipfile.ZipFile(bundle / "encoder.pt2") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not content.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), name


def test_a_model_that_no_program_can_express_is_refused_with_the_reason_or_exported_without(tmp_path):
    rest = {"recipe": recipe("Compressed"), "config": {}, "max_length": LENGTH, "formats": (Format.torch,)}
    with pytest.raises(
        InputError, match="Compressed cannot be written as a program of the form torch: Compressed cuts"
    ):
        write_bundle(built("Compressed"), tmp_path / "bundle", **rest)
    assert not (tmp_path / "bundle").exists()
    with pytest.warns(UserWarning, match="Compressed cannot be written"):
        write_bundle(built("Compressed"), tmp_path / "bundle", demanded=False, **rest)
    assert Retriever.load(tmp_path / "bundle").manifest["programs"] == []


def test_a_program_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    def of_another(encoder, example, longest):
        torch.manual_seed(1)
        return torch_program(QueryEncoder(build_recommender(recipe("GRU4Rec"), CATALOG).eval()), example, longest)

    monkeypatch.setattr("seqrec.export.programs.torch_program", of_another)
    rest = {"recipe": recipe("GRU4Rec"), "config": {}, "max_length": LENGTH, "formats": (Format.torch,)}
    with pytest.raises(InputError, match=r"encoder\.pt2 answers otherwise than the model"):
        write_bundle(built("GRU4Rec"), tmp_path / "bundle", **rest)
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(InputError, match="answers otherwise"):
        compare(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), "encoder.onnx")
