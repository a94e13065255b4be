"""What every backbone must obey. A new backbone adds one line to ``CASES``."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from seqrec.backbones.base import ContinuingBackbone
from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.backbones.compressed import Compressed
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import Entrance, HMamba, Variant
from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Block, Mamba4Rec
from seqrec.backbones.sasrec import Activation, Norm, SASRec
from seqrec.backbones.sigma import SIGMA, CausalSIGMA, LoggedSIGMA, Mixing, ReleasedFlip
from seqrec.nn.hyperbolic import LearnedCurvature
from seqrec.nn.mamba import StepInit
from seqrec.ops.dispatch import using
from seqrec.sequences import Sequences


class _compressed(Compressed):
    """Compressed user tokens inside SASRec."""

    def __init__(self, dim, n_recent, dropout=0.0):
        super().__init__(SASRec(dim, dropout=dropout), n_recent=n_recent)


CASES = [
    pytest.param(SASRec, {"norm": Norm.original, "n_heads": 1, "projects_output": False}, id="SASRec-original"),
    pytest.param(SASRec, {"norm": Norm.pre}, id="SASRec-pre"),
    pytest.param(SASRec, {"norm": Norm.post, "activation": Activation.gelu, "final_norm": False}, id="SASRec-post"),
    pytest.param(LiGR, {}, id="LiGR"),
    pytest.param(HSTU, {"n_heads": 2}, id="HSTU"),
    pytest.param(HSTU, {"head_dim": 3, "concatenates": True, "max_length": 50}, id="HSTU-wide"),
    # What is older is another matter as a history grows, so here all events are recent.
    pytest.param(_compressed, {"n_recent": 50}, id="Compressed"),
    pytest.param(Mamba4Rec, {"d_state": 4, "init_std": 0.3}, id="Mamba4Rec"),
    pytest.param(Mamba4Rec, {"n_layers": 2, "d_conv": 1, "dt_init": StepInit.mamba}, id="Mamba4Rec-2"),
    pytest.param(Mamba4Rec, {"d_state": 4, "block": Block.mamba2}, id="Mamba4Rec, Mamba-2"),
    pytest.param(GRU4Rec, {"n_layers": 2}, id="GRU4Rec"),
    pytest.param(BERT4Rec, {"init_std": 0.3}, id="BERT4Rec"),
    pytest.param(SIGMA, {"d_state": 4, "init_std": 0.3}, id="SIGMA"),
    pytest.param(
        SIGMA, {"n_layers": 2, "flip": ReleasedFlip(8, 12), "mixing": Mixing.softmax, "init_std": 0.3}, id="SIGMA-2"
    ),
    pytest.param(LoggedSIGMA, {"n_layers": 2, "d_state": 4, "init_std": 0.3}, id="LoggedSIGMA"),
    pytest.param(CausalSIGMA, {"d_state": 4, "init_std": 0.3}, id="CausalSIGMA"),
    pytest.param(CausalSIGMA, {"n_layers": 2, "mixing": Mixing.softmax, "dt_init": StepInit.mamba}, id="CausalSIGMA-2"),
    pytest.param(HMamba, {"d_state": 4}, id="HMamba-full"),
    pytest.param(HMamba, {"variant": Variant.half, "d_state": 4, "init_std": 0.3}, id="HMamba-half"),
    pytest.param(
        HMamba,
        {"entrance": Entrance.on_manifold, "curvature": LearnedCurvature(2.0), "curves_decay": True},
        id="HMamba-curved",
    ),
    pytest.param(HMamba, {"variant": Variant.half, "entrance": Entrance.euclidean}, id="HMamba-euclidean"),
]
PARTS = (slice(None), slice(-1), slice(-1, None))  # of a history: all, what came before its newest event, that event
CONTINUING = [case for case in CASES if issubclass(case.values[0], ContinuingBackbone)]
each_backbone = pytest.mark.parametrize(("build", "arguments"), CASES)

DIM = 8
N_VECTORS = 50
# Short and long, single events, a repeated item, one history with nothing in it, and far more than 16 events.
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)], [7, 7], [*range(30, 13, -1)]]


def ready(build, arguments):
    torch.manual_seed(0)
    return build(dim=DIM, **copy.deepcopy(arguments)).eval(), torch.randn(N_VECTORS, DIM)


def states_of(backbone, vectors, *histories):
    packed = Sequences.pack(histories, times=[[60 * place for place in range(len(history))] for history in histories])
    return backbone(vectors[packed.items], packed)


def skip_unless_causal(build):
    if not build.causal:
        pytest.skip(f"{build.__name__} declares that it reads later events")


@each_backbone
def test_a_history_never_sees_its_neighbours(build, arguments):
    backbone, vectors = ready(build, arguments)
    together = states_of(backbone, vectors, *HISTORIES)
    alone = torch.cat([states_of(backbone, vectors, history) for history in HISTORIES])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@each_backbone
@pytest.mark.parametrize("newest_alone", [False, True], ids=["places at will", "the newest of each"])
def test_states_at_some_places_are_those_of_all_places_with_the_same_gradients(build, arguments, newest_alone):
    backbone, vectors = ready(build, arguments)
    histories = [each for each in HISTORIES if each] if newest_alone else HISTORIES
    packed = Sequences.pack(histories, times=[[60 * place for place in range(len(each))] for each in histories])
    at = packed.newest if newest_alone else torch.cat([packed.newest[packed.lengths > 0], torch.tensor([0, 5, 5])])
    whole, some = (vectors[packed.items].requires_grad_() for _ in range(2))
    of_whole, of_some = backbone(whole, packed)[at], backbone.states_at(some, packed, at)
    torch.testing.assert_close(of_some, of_whole)
    weights = torch.randn_like(of_some)
    inside = list(backbone.parameters())
    expected = torch.autograd.grad((weights * of_whole).sum(), [whole, *inside], allow_unused=True)
    found = torch.autograd.grad((weights * of_some).sum(), [some, *inside], allow_unused=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_backbone
def test_no_gradient_flows_between_histories(build, arguments):
    backbone, vectors = ready(build, arguments)
    packed = Sequences.pack(HISTORIES)
    events = vectors[packed.items].requires_grad_()
    mine = packed.owners == 4
    backbone(events, packed)[mine].square().sum().backward()
    assert events.grad is not None
    assert (events.grad[~mine] == 0).all()


@each_backbone
@pytest.mark.parametrize("length", [2, 5, 17, 40])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_changing_later_events_changes_nothing_before_them(build, arguments, length, share):
    skip_unless_causal(build)
    backbone, vectors = ready(build, arguments)
    packed = Sequences.pack([[2, 3], list(range(length)), [4]])
    t = 2 + int(share * (length - 1))
    events = vectors[packed.items]
    changed = events.clone()
    changed[t + 1 :] = 100 * torch.randn_like(changed[t + 1 :])
    before, after = backbone(events, packed), backbone(changed, packed)
    torch.testing.assert_close(after[: t + 1], before[: t + 1], rtol=0, atol=1e-6)
    assert not torch.allclose(after[t + 1 :], before[t + 1 :])


@each_backbone
def test_no_gradient_flows_from_a_state_to_later_events(build, arguments):
    skip_unless_causal(build)
    backbone, vectors = ready(build, arguments)
    history = Sequences.pack([list(range(23))])
    for t in (0, 7, 21):
        events = vectors[history.items].requires_grad_()
        (gradient,) = torch.autograd.grad(backbone(events, history)[t].square().sum(), events)
        assert (gradient[t + 1 :] == 0).all()


@each_backbone
def test_events_that_are_still_to_come_change_no_state(build, arguments):
    skip_unless_causal(build)
    backbone, vectors = ready(build, arguments)
    longer = states_of(backbone, vectors, list(range(30)))
    for n_events in (1, 2, 16, 29):
        shorter = states_of(backbone, vectors, list(range(n_events)))
        torch.testing.assert_close(longer[:n_events], shorter, rtol=1e-4, atol=1e-5)


@each_backbone
def test_the_newest_state_knows_every_event_of_its_history(build, arguments):
    backbone, vectors = ready(build, arguments)
    history = Sequences.pack([list(range(12))])
    events = vectors[history.items].requires_grad_()
    # A plain sum would be constant behind a layer norm.
    (gradient,) = torch.autograd.grad((backbone(events, history)[-1] * torch.randn(DIM)).sum(), events)
    assert (gradient.abs().sum(1) > 0).all()


@each_backbone
def test_gradients_are_finite_and_reach_every_parameter(build, arguments):
    backbone, vectors = ready(build, arguments)
    backbone.train()
    packed = Sequences.pack(HISTORIES)
    events = vectors[packed.items].requires_grad_()
    (backbone(events, packed) * torch.randn(packed.items.numel(), DIM)).sum().backward()
    for name, leaf in [("events", events), *backbone.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name


@each_backbone
@pytest.mark.parametrize("histories", [[], [[]], [[], []]], ids=["no history", "one empty", "two empty"])
def test_histories_without_events_have_no_states_and_no_gradients(build, arguments, histories):
    backbone, vectors = ready(build, arguments)
    packed = Sequences.pack(histories)
    events = vectors[packed.items].requires_grad_()
    states = backbone(events, packed)
    assert states.shape == (0, DIM)
    states.sum().backward()


@each_backbone
def test_evaluation_is_repeatable_and_training_drops(build, arguments):
    backbone, vectors = ready(build, {**arguments, "dropout": 0.5})
    assert torch.equal(states_of(backbone, vectors, *HISTORIES), states_of(backbone, vectors, *HISTORIES))
    backbone.train()
    assert not torch.equal(states_of(backbone, vectors, *HISTORIES), states_of(backbone, vectors, *HISTORIES))


@each_backbone
def test_every_implementation_of_its_ops_gives_the_states_of_the_reference(build, arguments):
    backbone, vectors = ready(build, arguments)
    chosen = states_of(backbone, vectors, *HISTORIES)
    with using("reference"):
        expected = states_of(backbone, vectors, *HISTORIES)
    torch.testing.assert_close(chosen, expected, rtol=1e-4, atol=1e-5)


@each_backbone
def test_states_stay_close_and_finite_under_bfloat16_autocast(build, arguments):
    backbone, vectors = ready(build, arguments)
    exact = states_of(backbone, vectors, *HISTORIES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = states_of(backbone, vectors, *HISTORIES)
    assert narrow.isfinite().all()
    torch.testing.assert_close(narrow.float(), exact, rtol=0.1, atol=0.15)


@each_backbone
def test_a_module_of_bfloat16_has_states_and_gradients_of_its_own_kind(build, arguments):
    backbone, vectors = ready(build, arguments)
    exact = states_of(backbone, vectors, *HISTORIES)
    states = states_of(backbone.bfloat16(), vectors.bfloat16(), *HISTORIES)
    assert states.dtype == torch.bfloat16
    assert (states.float() - exact).norm() <= 0.1 * exact.norm()
    (states * torch.randn_like(states)).sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@each_backbone
def test_it_declares_its_width_and_whether_it_is_causal(build, arguments):
    backbone, vectors = ready(build, arguments)
    assert backbone.dim == DIM
    assert isinstance(build.causal, bool)
    assert states_of(backbone, vectors, *HISTORIES).shape == (sum(map(len, HISTORIES)), DIM)


@pytest.mark.parametrize(("build", "arguments"), CONTINUING)
@pytest.mark.parametrize("cut", [0, 1, 2, 17])
def test_to_go_on_from_what_is_remembered_equals_the_full_pass(build, arguments, cut):
    backbone, vectors = ready(build, arguments)
    whole = Sequences.pack(HISTORIES)
    expected = backbone(vectors[whole.items], whole)
    memory = None
    parts = []
    for begin, end in ((0, cut), (cut, cut + 1), (cut + 1, 50)):
        part = Sequences.pack([history[begin:end] for history in HISTORIES])
        states, memory = backbone.proceed(vectors[part.items], part, memory)
        parts.append([states[first:last] for first, last in zip(part.offsets[:-1], part.offsets[1:], strict=True)])
    states = torch.cat([each for history in zip(*parts, strict=True) for each in history])
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("build", "arguments"), CONTINUING)
@pytest.mark.parametrize("newest_alone", [False, True], ids=["places at will", "the newest of each"])
def test_some_states_behind_a_memory_are_those_of_all_and_all_is_remembered(build, arguments, newest_alone):
    backbone, vectors = ready(build, arguments)
    past, new, later = (
        Sequences.pack([history[some] for history in HISTORIES]) for some in (slice(3), slice(3, 17), slice(17, None))
    )
    _, memory = backbone.proceed(vectors[past.items], past, None)
    states, whole = backbone.proceed(vectors[new.items], new, memory)
    at = new.newest[new.lengths > 0]
    at = at if newest_alone else torch.cat([at.flip(0), torch.tensor([0, 0])])
    found, partial = backbone.proceed_at(vectors[new.items], new, at, memory)
    torch.testing.assert_close(found, states[at])
    after = [backbone.proceed(vectors[later.items], later, each)[0] for each in (whole, partial)]
    torch.testing.assert_close(*after)


@pytest.mark.parametrize(("build", "arguments"), CONTINUING)
@pytest.mark.parametrize("histories", [[[*range(9)]], [[*range(9)], [4, 1], [7]]], ids=["one", "several"])
def test_what_is_remembered_goes_through_a_file(build, arguments, histories, tmp_path):
    backbone, vectors = ready(build, arguments)
    whole, past, new = (Sequences.pack([history[some] for history in histories]) for some in PARTS)
    expected = backbone(vectors[whole.items], whole)[whole.newest]
    _, memory = backbone.proceed(vectors[past.items], past, None)
    refused = ""
    try:
        tensors = backbone.stored(memory)
    except TypeError as refusal:
        refused, tensors = str(refusal), {}
    if refused:  # attention keeps more of longer histories
        assert len(histories) > 1
        assert "longer histories take more room" in refused
        return
    assert tensors
    assert all(len(tensor) == len(histories) for tensor in tensors.values())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "memory.safetensors")
    memory = backbone.restored(load_file(tmp_path / "memory.safetensors"))
    states, _ = backbone.proceed(vectors[new.items], new, memory)
    torch.testing.assert_close(states[new.newest], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("build", "arguments"), CONTINUING)
def test_some_users_of_a_stored_memory_go_on_without_the_others(build, arguments):
    backbone, vectors = ready(build, arguments)
    histories = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    past, two = Sequences.pack(histories), Sequences.pack([[10], [11]])
    tensors = backbone.stored(backbone.proceed(vectors[past.items], past, None)[1])
    memory = backbone.restored({name: tensor[[2, 0]] for name, tensor in tensors.items()})
    states, _ = backbone.proceed(vectors[two.items], two, memory)
    whole = Sequences.pack([[7, 8, 9, 10], [1, 2, 3, 11]])
    expected = backbone(vectors[whole.items], whole)[whole.newest]
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("build", "arguments"), CONTINUING)
def test_what_was_remembered_in_half_precision_is_read_in_full(build, arguments):
    backbone, vectors = ready(build, arguments)
    past, new = Sequences.pack([[3, 1, 4], [1]]), Sequences.pack([[5], [9, 2]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, memory = backbone.proceed(vectors[past.items], past, None)
    states, _ = backbone.proceed(vectors[new.items], new, memory)
    whole = Sequences.pack([[3, 1, 4, 5], [1, 9, 2]])
    expected = backbone(vectors[whole.items], whole)[[3, 5, 6]]
    torch.testing.assert_close(states, expected, rtol=0.1, atol=0.15)


@pytest.mark.parametrize("build", [SASRec, LiGR, HSTU, Mamba4Rec, GRU4Rec])
def test_no_layer_is_refused(build):
    with pytest.raises(ValueError, match="_layers"):
        build(DIM, n_layers=0)
