"""The losses of SRA-CL by hand, its mixture of neighbours, and where its gradients go."""

import math
from dataclasses import replace

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.contrast import one_sided_contrast, symmetric_contrast
from seqrec.objectives.semantic_contrast import Attention, Negatives, NeighbourContrast, SubstituteContrast, Synthesis
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_pairs_of_orthonormal_vectors_cost_what_the_formula_says(n):
    ones = torch.eye(8)[:n]
    expected = math.log(1 + 2 * (n - 1) * math.exp(-1))
    assert symmetric_contrast(ones, ones, 1.0).item() == pytest.approx(expected, abs=1e-6)
    expected = math.log(1 + (n - 1) * math.exp(-1))
    assert one_sided_contrast(ones, ones, 1.0).item() == pytest.approx(expected, abs=1e-6)


def test_both_losses_are_those_of_their_definitions_written_as_loops():
    torch.manual_seed(0)
    ones, others = torch.randn(4, 3), torch.randn(4, 3)
    both = torch.cat([ones, others])
    symmetric, one_sided = 0.0, 0.0
    for place in range(8):
        rivals = [math.exp(both[place] @ both[other] / 0.5) for other in range(8) if other != place]
        symmetric -= math.log(math.exp(both[place] @ both[(place + 4) % 8] / 0.5) / sum(rivals)) / 8
    for place in range(4):
        rivals = [math.exp(ones[place] @ other / 0.5) for other in others]
        one_sided -= math.log(rivals[place] / sum(rivals)) / 4
    assert symmetric_contrast(ones, others, 0.5).item() == pytest.approx(symmetric, rel=1e-5)
    assert one_sided_contrast(ones, others, 0.5).item() == pytest.approx(one_sided, rel=1e-5)


@pytest.mark.parametrize("contrast", [symmetric_contrast, one_sided_contrast])
def test_pairs_that_are_left_out_push_nothing_away(contrast):
    torch.manual_seed(0)
    ones, others = torch.randn(3, 4), torch.randn(3, 4)
    left_out = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    moved = others.clone().requires_grad_()
    gradient = torch.autograd.grad(contrast(ones[:2], moved[:2], 1.0, left_out[:2, :2]), moved)[0]
    assert (gradient == 0).all()  # the only rivals were each other
    assert contrast(ones, others, 1.0, left_out) < contrast(ones, others, 1.0)


@pytest.mark.parametrize("attention", list(Attention))
def test_equal_texts_are_mixed_in_equal_shares(attention):
    mixture = Synthesis(5, attention=attention).eval()
    states = torch.randn(2, 3, 4)
    texts = torch.randn(2, 1, 5).expand(2, 3, 5)
    torch.testing.assert_close(mixture.weights(torch.randn(2, 5), texts), torch.full((2, 3), 1 / 3))
    torch.testing.assert_close(mixture(torch.randn(2, 5), texts, states), states.mean(1))


@pytest.mark.parametrize("attention", list(Attention))
def test_the_order_of_neighbours_does_not_matter_and_shares_add_up_to_one(attention):
    torch.manual_seed(0)
    mixture = Synthesis(5, attention=attention).eval()
    own, texts, states, order = torch.randn(2, 5), torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.tensor([2, 0, 1])
    torch.testing.assert_close(mixture.weights(own, texts[:, order]), mixture.weights(own, texts)[:, order])
    torch.testing.assert_close(mixture(own, texts[:, order], states[:, order]), mixture(own, texts, states))
    torch.testing.assert_close(mixture.weights(own, texts).sum(1), torch.ones(2))


@pytest.mark.parametrize("normalises", [True, False])
def test_shares_are_those_of_the_equation(normalises):
    """Equation of the synthesis: softmax over j of LeakyReLU(a · [W p, W p_j]), of texts as they are or normalised."""
    torch.manual_seed(0)
    mixture = NeighbourContrast(5, dim=2, normalises_texts=normalises).synthesis.eval()
    given = torch.randn(1, 5), torch.randn(1, 3, 5)
    own, texts = given
    if normalises:
        own, texts = ((x - x.mean(-1, keepdim=True)) / x.std(-1, unbiased=False, keepdim=True) for x in given)
    w, a = mixture.map.weight, mixture.direction.squeeze(1)
    logits = [torch.cat([w @ own[0], w @ texts[0, j]]) @ a for j in range(3)]
    exact = torch.stack([torch.where(logit > 0, logit, 0.2 * logit) for logit in logits]).softmax(0)
    torch.testing.assert_close(mixture.weights(*given)[0], exact, rtol=1e-4, atol=1e-5)


def test_texts_of_unit_length_are_told_apart_from_the_start_whatever_their_scale():
    """Neighbours whose texts have a cosine of .9 with each other, as those of sentence encoders do."""
    torch.manual_seed(0)
    common, apart = torch.randn(1, 1, 384), torch.randn(64, 11, 384)
    texts = torch.nn.functional.normalize(3 * common + apart, dim=-1)
    mixture = Synthesis(384).eval()
    shares = mixture.weights(texts[:, 0], texts[:, 1:])
    assert shares.max(1).values.mean() > 1.2 / 10
    torch.testing.assert_close(mixture.weights(9 * texts[:, 0], 9 * texts[:, 1:]), shares, rtol=1e-2, atol=1e-3)


def test_a_dropout_that_leaves_no_share_is_refused():
    with pytest.raises(ValueError, match=r"dropout is 1\.0; it must be at least 0 and below 1"):
        NeighbourContrast(text_dim=5, dropout=1.0)


def test_only_the_dynamic_form_lets_the_history_say_which_neighbour_counts_more():
    torch.manual_seed(0)
    own, texts = torch.randn(200, 5), torch.randn(1, 6, 5).expand(200, 6, 5)
    static, dynamic = (Synthesis(5, attention=form).eval().weights(own, texts) for form in Attention)
    assert len(static.argsort(1).unique(dim=0)) == 1
    assert len(dynamic.argsort(1).unique(dim=0)) > 1


def test_dropout_of_shares_is_for_training_alone_and_keeps_them_on_average():
    torch.manual_seed(0)
    mixture = Synthesis(5)
    own, texts, states = torch.randn(1, 5), torch.randn(1, 3, 5), torch.randn(1, 3, 4)
    drawn = torch.stack([mixture(own, texts, states) for _ in range(4000)])
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn.mean(0), mixture.eval()(own, texts, states), atol=0.06, rtol=0)


def encoded(users=(0, 1, 2)):
    torch.manual_seed(0)
    history = Sequences.pack([[1, 2], [3], [4, 5, 6]])
    neighbours = replace(Sequences.pack([[1, 2], [7], [8, 9]] * 3), vectors=torch.randn(9, 5))
    views = {"neighbours": neighbours, "substitutes": history, "other_substitutes": history}
    states = {name: torch.randn(len(view), 4, requires_grad=True) for name, view in views.items()}
    batch = Batch(torch.tensor(users), history, history.newest, torch.tensor([3, 4, 5]), views=views)
    own = torch.randn(3, 4, requires_grad=True)
    return Encoded(batch, own, own, lambda rows: own, torch.arange(10), states), states


def test_gradients_reach_history_neighbours_and_the_synthesis_but_not_the_texts():
    read, states = encoded()
    loss = NeighbourContrast(text_dim=5, dropout=0.0)
    loss(read).backward()
    assert (states["neighbours"].grad != 0).any(1).all()
    assert states["substitutes"].grad is None
    assert all(weight.grad.abs().sum() > 0 for weight in loss.parameters())
    assert not read.batch.views["neighbours"].vectors.requires_grad


def test_the_loss_of_neighbours_is_that_of_the_history_itself_and_its_mixture():
    read, states = encoded()
    loss = NeighbourContrast(text_dim=5, dropout=0.0, negatives=Negatives.synthetic, temperature=2.0)
    newest = states["neighbours"].view(3, 3, 4)
    texts = read.batch.views["neighbours"].vectors.view(3, 3, 5)
    partners = loss.synthesis(texts[:, 0], texts[:, 1:], newest[:, 1:])
    torch.testing.assert_close(loss(read), one_sided_contrast(newest[:, 0], partners, 2.0))


@pytest.mark.parametrize("build", [lambda **a: NeighbourContrast(5, dropout=0.0, **a), SubstituteContrast])
def test_histories_of_one_user_repel_each_other_unless_told_not_to(build):
    torch.manual_seed(1)
    repelling = build()
    torch.manual_seed(1)
    sparing = build(same_user_repels=False)
    assert sparing(encoded()[0]) == repelling(encoded()[0])
    assert sparing(encoded(users=(0, 1, 1))[0]) < repelling(encoded(users=(0, 1, 1))[0])


def test_a_view_that_is_missing_is_named_with_those_that_are_there():
    read = encoded()[0]
    with pytest.raises(ValueError, match=r"reads the view 'alike', the batch carries \['neighbours', "):
        NeighbourContrast(5, view="alike")(read)
    with pytest.raises(ValueError, match="SubstituteContrast reads the view 'one'"):
        SubstituteContrast(views=("one", "two"))(read)


def test_texts_of_another_width_or_none_are_refused():
    with pytest.raises(ValueError, match="text vectors of 6 numbers, and the view 'neighbours' brings vectors of 5"):
        NeighbourContrast(6)(encoded()[0])
    with pytest.raises(ValueError, match="brings no vectors"):
        NeighbourContrast(6, view="substitutes")(encoded()[0])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="temperature is 0"):
        NeighbourContrast(5, temperature=0.0)
    with pytest.raises(ValueError, match="name two"):
        SubstituteContrast(views=("one",))


@pytest.mark.parametrize("negatives", list(Negatives))
def test_each_loss_is_the_one_that_its_setting_names(negatives):
    """Released: both kinds of vectors of all other histories repel. The paper: their synthetic ones alone."""
    torch.manual_seed(0)
    history = Sequences.pack([[1, 2], [3], [4, 5]])
    views = {
        "substitutes": history,
        "other_substitutes": history,
        "neighbours": replace(Sequences.pack([[1], [2], [3]] * 3), vectors=torch.randn(9, 5)),
    }
    batch = Batch(torch.arange(3), history, history.newest, torch.arange(3), views=views)
    states = {name: torch.randn(len(view), 4) for name, view in views.items()}
    at = torch.zeros(3, 4)
    encoded = Encoded(batch, at, at, lambda rows: at, torch.ones(3, dtype=torch.long), states)
    loss = NeighbourContrast(5, dropout=0.0, negatives=negatives, temperature=0.7)
    own, *others = states["neighbours"].view(3, 3, 4).unbind(1)
    texts = views["neighbours"].vectors.view(3, 3, 5)
    partners = loss.synthesis(texts[:, 0], texts[:, 1:], torch.stack(others, 1))
    wanted = {"both": symmetric_contrast, "synthetic": one_sided_contrast}[negatives.name]
    torch.testing.assert_close(loss(encoded), wanted(own, partners, 0.7))
    assert NeighbourContrast(5).contrast is symmetric_contrast
    twice = symmetric_contrast(states["substitutes"], states["other_substitutes"], 2.0)
    torch.testing.assert_close(SubstituteContrast(temperature=2.0)(encoded), twice)
