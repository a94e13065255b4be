"""The model card of a bundle: a README that says what it is, how good it is, and where its limits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

CARD = "README.md"


def card(fields: Mapping[str, Any]) -> str:
    """Markdown with a header that model hubs read.

    Args:
        fields: those of the manifest; what is unknown is said to be.
    """
    about = fields["about"]
    header = {"library_name": "seqrec", "tags": ["recommendation", "sequential-recommendation"]}
    model = about.get("model", "sequential recommender")
    data = about.get("data") or "data that nobody named"
    licence = about.get("licence") or "Nobody said under which terms the data may be used; ask before you share this."
    return "\n".join(
        [
            *("---", yaml.safe_dump(header, sort_keys=False).strip(), "---"),
            f"# {model}, trained on {data}",
            "Given what a person did so far, it ranks the items of its catalogue by how likely each comes next.",
            *(
                "## Use",
                "```",
                "pip install 'seqrec[cpu]'",
                "seqrec recommend --bundle THIS_FOLDER --history ID,ID -k 10",
            ),
            *("```", _programs(fields["programs"])),
            *("## Metrics", _table(fields["metrics"]) or "Nobody tested it: there are no figures."),
            *("## Protocol", _passport(about.get("passport") or {})),
            *("## Data", f"{data}: {fields['trained_items']:,} items in training.{_added(fields)}"),
            *("## Licence", str(licence)),
            *("## Limits", *(f"- {limit}" for limit in _limits(fields))),
            "",
        ]
    ).replace("\n## ", "\n\n## ")


def _programs(files: list[str]) -> str:
    if not files:
        return "The query encoder is not there as a program of its own."
    return f"The query encoder alone, one history at a time, from catalog rows to a query: {', '.join(files)}."


def _table(metrics: Mapping[str, float]) -> str:
    lines = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *lines]) if lines else ""


def _passport(passport: Mapping[str, Any]) -> str:
    """Numbers of another protocol must not be compared with these."""
    lines = [f"- {name}: {value}" for name, value in passport.items()]
    return "\n".join(lines) if lines else "Nobody recorded a protocol, so no figure may be compared with others."


def _added(fields: Mapping[str, Any]) -> str:
    added = fields["items"] - fields["trained_items"]
    return f" {added:,} were added later, from their texts." if added else ""


def _limits(fields: Mapping[str, Any]) -> list[str]:
    index, length = fields["index"], fields["max_length"]
    finds = f"finds {index['recall']:.1%} of the {index['k']} best items (measured on a sample)"
    return [
        "It knows the items of its catalogue alone; a history without one of them has no answer.",
        "It reads all events of a history." if length is None else f"It reads the newest {length} events of a history.",
        "The index is exact." if index["kind"] == "flat" else f"The index is of the kind {index['kind']}: it {finds}.",
        "It learned what people did, with whatever bias their choices and the shop's own lists had.",
    ]
