"""The query encoder of a bundle as programs that run without seqrec: by torch.export and as ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.data.errors import InputError
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.sequences import Sequences

_TOLERANCE = 1e-4
_TRIED = 8


class QueryEncoder(nn.Module):
    """The query of one history, from catalog rows and, for models that read them, times and the moment of asking.

    One history at a time: so a program needs neither padding nor offsets, costs what the history costs, and its answer
    cannot depend on a neighbour. Who has many histories runs the program many times, on as many threads as there are.

    Args:
        recommender: in evaluation mode, on the CPU.
    """

    def __init__(self, recommender: KeyedRecommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(
        self, rows: Int[Tensor, "T"], times: Int[Tensor, "T"] | None = None, asked_at: Int[Tensor, "1"] | None = None
    ) -> Float[Tensor, "K"]:
        length = torch.ones_like(rows).sum()[None]
        history = Sequences(rows, torch.cat([torch.zeros_like(length), length]), times)
        if asked_at is not None:
            history = history.asking(history.newest, asked_at)
        return self.recommender.scorer.queries(self.recommender.next_states(history, history.newest))[0]

    def inputs(self, history: Sequences) -> dict[str, Tensor]:
        """What the program of this recommender wants of one history, by name."""
        wanted = {"rows": history.items}
        if self.recommender.reads_clock or self.recommender.reads_asked_at:
            assert history.times is not None, "samples carry times"
            wanted["times"] = history.times
        if self.recommender.reads_asked_at:
            assert history.asked_at is not None, "samples say when is asked where the model reads it"
            wanted["asked_at"] = history.asked_at[history.newest]
        return wanted


def torch_program(
    encoder: QueryEncoder, example: dict[str, Tensor], longest: int | None
) -> torch.export.ExportedProgram:
    """The encoder as a graph of tensors, for histories of 1 to ``longest`` events (None: any)."""
    events = None if longest == 1 else torch.export.Dim("events", min=1, max=longest)
    sizes = {name: {} if name == "asked_at" else {0: events} for name in example}
    with _quiet(), torch.no_grad():
        program = torch.export.export(encoder, (), example, dynamic_shapes=sizes, strict=False)
    program.example_inputs = None  # they would be kept as a pickle
    return program


def _save_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def _save_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    with _quiet():
        exported = torch.onnx.export(program, dynamo=True, verbose=False, output_names=["query"])
    assert exported is not None, "only the older exporter returns nothing"
    exported.save(path)


def _run_torch(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    program = torch.export.load(path).module()
    return lambda inputs: program(**inputs)


def _run_onnx(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(
        np.asarray(session.run(None, {name: values.numpy() for name, values in inputs.items()})[0])
    )


@dataclass(frozen=True)
class Form:
    """A file, how it is written, and how it is run."""

    file: str
    save: Callable[[torch.export.ExportedProgram, Path], None]
    run: Callable[[Path], Callable[[dict[str, Tensor]], Tensor]]


class Format(Enum):
    """The forms in which a query encoder is written."""

    torch = Form("encoder.pt2", _save_torch, _run_torch)
    onnx = Form("encoder.onnx", _save_onnx, _run_onnx)


@torch.no_grad()
def write_programs(
    recommender: KeyedRecommender,
    folder: Path,
    formats: Iterable[Format],
    max_length: int | None,
    samples: Sequences,
    demanded: bool = True,
) -> list[str]:
    """Write the query encoder in these forms; what is written is read again and must answer as the recommender does.

    Args:
        recommender: in evaluation mode, on the CPU.
        folder: where.
        formats: the forms; none writes nothing.
        max_length: most events of a history; None is no limit.
        samples: histories to compare answers on; their shortest, their longest and some others are taken.
        demanded: False warns of what cannot be written, instead of refusing.

    Returns:
        the names of the files.

    Raises:
        InputError: a program answers otherwise; or, where they are demanded, the model does things that a program
            cannot do, or a package is missing.
    """
    encoder, tried = QueryEncoder(recommender), _some(samples)
    own = [encoder(**encoder.inputs(history)) for history in tried]
    program, written = None, []
    for form in formats:
        path = folder / form.value.file
        try:
            if program is None:
                program = torch_program(encoder, encoder.inputs(_example(tried[-1])), max_length)
            form.value.save(program, path)
            run = form.value.run(path)
        except Exception as refusal:  # exporters raise whatever they meet
            told = _told(recommender, form, refusal)
            for half in folder.glob(f"{path.name}*"):
                half.unlink()
            if demanded:
                raise InputError(f"{told} Leave {form.name} out of --format.") from refusal
            warnings.warn(told, stacklevel=2)
            continue
        for history, expected in zip(tried, own, strict=True):
            compare(run(encoder.inputs(history)), expected, path.name)
        written += sorted(each.name for each in folder.glob(f"{path.name}*"))  # large weights of ONNX lie beside it
    return written


def compare(found: Float[Tensor, "K"], expected: Float[Tensor, "K"], name: str) -> None:
    """See that a program answers as the recommender does.

    Raises:
        InputError: it does not.
    """
    apart = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not apart <= _TOLERANCE:
        raise InputError(
            f"The program {name} answers otherwise than the model: a query differs by {apart:.1g} of its largest "
            f"number, where {_TOLERANCE:.0e} is allowed. Leave its form out of --format, and report the model."
        )


def _told(recommender: KeyedRecommender, form: Format, refusal: Exception) -> str:
    """Why a program cannot be written, in a sentence."""
    if isinstance(refusal, ModuleNotFoundError):
        return f"A program of the form {form.name} needs {refusal.name}; run pip install 'seqrec[export]'."
    first = (str(refusal).strip() or type(refusal).__name__).splitlines()[0].rstrip(".")
    return f"{type(recommender.backbone).__name__} cannot be written as a program of the form {form.name}: {first}."


def _example(history: Sequences) -> Sequences:
    """A history that stands for all: torch takes a size of 1 for a constant."""
    if history.items.numel() > 1:
        return history
    times, asked_at = (None if values is None else values.repeat(2) for values in (history.times, history.asked_at))
    return Sequences(history.items.repeat(2), torch.tensor([0, 2]), times, asked_at)


def _some(samples: Sequences) -> list[Sequences]:
    """Histories of their own: the shortest, the longest, and some between."""
    by_length = samples.lengths.argsort().tolist()
    chosen = sorted({round(place) for place in np.linspace(0, len(by_length) - 1, _TRIED)})
    return [_alone(samples, by_length[place]) for place in chosen]


def _alone(samples: Sequences, place: int) -> Sequences:
    own = slice(int(samples.offsets[place]), int(samples.offsets[place + 1]))
    times, asked_at = (None if each is None else each[own].clone() for each in (samples.times, samples.asked_at))
    return Sequences(samples.items[own].clone(), torch.tensor([0, own.stop - own.start]), times, asked_at)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what they do to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
