"""Checks that need no measurement: tokenizers, templates, boundaries, stops, capabilities, probes, memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from semanticspec.decoding.pair import Model, Pair
from semanticspec.records import Author

Level = Literal["ok", "note", "problem"]
_SHOWN = 4  # tokens named in one line


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: what was checked, for the first column.
        text: what was found and, unless all is well, what to change.
    """

    level: Level
    subject: str
    text: str


def check_pair(pair: Pair) -> list[Finding]:
    """Runs all checks; the target first where both models are checked."""
    models: list[tuple[Author, Model]] = [("target", pair.target), ("draft", pair.draft)]
    findings = [_model(role, model) for role, model in models]
    findings.append(_vocabularies(pair))
    findings += [_chat_template(role, model) for role, model in models]
    findings.append(_thinking(pair))
    findings += [_boundaries(role, model) for role, model in models]
    findings += [_ends(role, model) for role, model in models]
    findings.append(_capabilities(pair))
    findings.append(_context(pair))
    findings.append(_probes(pair))
    findings.append(_memory())
    return findings


def _model(role: Author, model: Model) -> Finding:
    info = model.engine.info
    where = ", ".join(part for part in (info.dtype, info.device) if part)
    shape = f"{info.num_layers} layers, hidden size {info.hidden_size}, {info.vocabulary_size:,} token ids"
    return Finding("ok", role, f"{info.model_id}: {shape}{f'; {where}' if where else ''}")


def _vocabularies(pair: Pair) -> Finding:
    if not pair.same_vocabulary:
        return Finding(
            "note",
            "vocabularies",
            "the base tokens differ, so text is handed over and tokenized again: --rule token, partial acceptance and "
            "token-level speculation are not available; a draft of the target's family would make them so",
        )
    added = pair.draft.vocabulary.added_tokens
    tokens = [added[i] for i in sorted(pair.to_target.unmapped) if i in added]  # the others are padding
    if tokens:
        return Finding("ok", "vocabularies", f"token ids are exchanged; only the draft has {_listed(tokens)}")
    return Finding("ok", "vocabularies", "token ids are exchanged")


def _chat_template(role: Author, model: Model) -> Finding:
    if model.vocabulary.has_chat_template:
        return Finding("ok", f"{role}'s template", "chat template found")
    return Finding(
        "note",
        f"{role}'s template",
        "no chat template: prompts are used as they are, which base models expect and chat models do not",
    )


def _thinking(pair: Pair) -> Finding:
    opens = {}
    for role, model in (("target", pair.target), ("draft", pair.draft)):
        prompt_ids = model.vocabulary.render_prompt("What is 2 + 3?")
        opens[role] = model.vocabulary.opens_thinking(prompt_ids)
    if opens["target"] != opens["draft"]:
        one, other = ("target", "draft") if opens["target"] else ("draft", "target")
        return Finding(
            "problem",
            "thinking",
            f"the {one}'s chat template opens <think>, the {other}'s does not: the models start their answers "
            "differently, and few segments will be accepted; use a draft with the same template",
        )
    has_tag = pair.target.vocabulary.think_end_id is not None
    if not has_tag and not opens["target"]:
        return Finding("note", "thinking", "the target has no token </think>: all of its text is one part")
    begun = "by the chat template" if opens["target"] else "by the model"
    return Finding("ok", "thinking", f"<think> is opened {begun}; the answer follows </think>")


def _boundaries(role: Author, model: Model) -> Finding:
    segmenter = model.segmenter
    subject = f"{role}'s boundaries"
    if segmenter.needs_pair_stops:
        if not model.engine.info.capabilities.pair_stops:
            return Finding(
                "problem",
                subject,
                "a blank line is two tokens, and this engine stops at single tokens only; use transformers",
            )
        return Finding("ok", subject, "a blank line is two tokens; segments end at the pair")
    if not segmenter.boundary_ids:
        return Finding(
            "problem", subject, "no token contains a blank line: segments run to max_segment_tokens"
        )
    return Finding("ok", subject, f"{len(segmenter.boundary_ids)} tokens contain a blank line")


def _ends(role: Author, model: Model) -> Finding:
    tokens = model.vocabulary.tokenizer.convert_ids_to_tokens(sorted(model.vocabulary.end_ids))
    return Finding("ok", f"{role}'s ends of text", _listed(tokens))


def _capabilities(pair: Pair) -> Finding:
    lacking = [
        role
        for role, model in (("target", pair.target), ("draft", pair.draft))
        if not model.engine.info.capabilities.distributions
    ]
    if lacking:
        return Finding(
            "note",
            "optimizations",
            f"the engine of {' and '.join(lacking)} returns no distributions: partial acceptance and token-level "
            "speculation are off",
        )
    if not pair.same_vocabulary:
        return Finding("note", "optimizations", "partial acceptance and token-level speculation are off")
    return Finding("ok", "optimizations", "partial acceptance and token-level speculation are available")


def _context(pair: Pair) -> Finding:
    target, draft = (model.engine.info.max_context_tokens for model in (pair.target, pair.draft))
    if draft < target:
        return Finding(
            "note",
            "context",
            f"the draft's context of {draft:,} tokens is shorter than the target's of {target:,}: beyond it the "
            "target writes alone",
        )
    return Finding("ok", "context", f"{target:,} tokens, prompt and answer together")


def _probes(pair: Pair) -> Finding:
    if pair.target_probe is not None and pair.draft_probe is not None:
        return Finding("ok", "probes", "the rule semantic is available")
    if pair.fitting_probes:
        name = next(iter(pair.fitting_probes))
        return Finding(
            "note",
            "probes",
            f"none loaded; packaged ones fit: --target-probe {name} --draft-probe {name} make the rule semantic "
            "available",
        )
    return Finding(
        "note",
        "probes",
        "none, and no packaged ones fit: the rule semantic is not available; use --rule token (lossless) where "
        "available or --rule top-k, or train probes (semanticspec probe run)",
    )


def _memory() -> Finding:
    parts = [f"{_peak_bytes() / 2**30:.1f} GiB peak resident memory of this process"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            parts.append(f"cuda:{index} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    return Finding("ok", "memory", "; ".join(parts))


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _listed(tokens: Iterable[str]) -> str:
    named = list(tokens)
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
