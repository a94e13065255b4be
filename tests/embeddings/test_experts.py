"""A mixture of experts beside a plain one, and what its gates see."""

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.embeddings.experts import TextExperts

CATALOG = Catalog(pl.DataFrame({"item_id": list("abcde"), "count": [1] * 5}))
VECTORS = np.random.default_rng(0).normal(1, 2, size=(5, 6)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": CATALOG.ids, "vector": VECTORS.tolist()}).write_parquet(path)
    return str(path)


def test_it_is_what_experts_make_weighed_by_gates_that_read_the_text(file):
    torch.manual_seed(0)
    made = TextExperts(CATALOG, 3, file, n_experts=4).eval()
    with torch.no_grad():
        made.gate.weight.normal_()
        made.experts.bias.normal_()
    texts = (VECTORS - VECTORS.mean(1, keepdims=True)) / VECTORS.std(1, keepdims=True)
    weight, bias, gate = (each.detach().numpy() for each in (made.experts.weight, made.experts.bias, made.gate.weight))
    plain = np.zeros((5, 3))
    for row, text in enumerate(texts):
        shares = np.exp(gate @ text) / np.exp(gate @ text).sum()
        for expert in range(4):
            its = slice(3 * expert, 3 * expert + 3)
            plain[row] += shares[expert] * (weight[its] @ text + bias[its])
    np.testing.assert_allclose(made().detach().numpy(), plain, rtol=1e-4, atol=1e-4)


def test_its_numbers_begin_as_a_table_does_that_deviates_so(file):
    assert TextExperts(CATALOG, 3, file, init_std=0.3).eval()().square().mean().sqrt().item() == pytest.approx(0.3)


def test_noise_and_dropout_are_for_training_alone_and_the_texts_are_not_trained(file):
    for arguments in ({"noise": 1.0, "dropout": 0.0}, {"noise": 0.0, "dropout": 0.5}):
        made = TextExperts(CATALOG, 3, file, **arguments)
        made.gate.weight.data.normal_()
        assert not torch.equal(made(), made())
        made.eval()
        assert torch.equal(made(), made())
    assert set(dict(made.named_parameters())) == {"experts.weight", "experts.bias", "gate.weight"}


def test_gates_see_the_numbers_that_experts_miss(file):
    """Experts that read nothing are told apart by their biases, so all that is left to chance would be the gates."""
    torch.manual_seed(0)
    made = TextExperts(CATALOG, 3, file, n_experts=4, dropout=0.5, noise=0.0)
    with torch.no_grad():
        made.gate.weight.normal_()
        made.experts.weight.zero_()
        made.experts.bias.normal_()
    trained = made()
    torch.testing.assert_close(trained, made.eval()())


def test_weights_bring_maps_and_texts_where_the_file_is_absent(tmp_path, file):
    stored = TextExperts(CATALOG, 3, file).eval()
    opened = TextExperts(CATALOG, 3, str(tmp_path / "absent.parquet")).eval()
    opened.load_state_dict(stored.state_dict())
    assert torch.equal(opened(), stored())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"n_experts": 0}, "n_experts is 0"), ({"noise": -1.0}, "noise is -1"), ({"dropout": 1.0}, "dropout is 1")],
)
def test_settings_out_of_range_are_refused(file, arguments, words):
    with pytest.raises(ValueError, match=words):
        TextExperts(CATALOG, 3, file, **arguments)
