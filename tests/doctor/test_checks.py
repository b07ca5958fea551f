"""What the checks find in pairs that fit and in pairs that do not."""

from __future__ import annotations

from dataclasses import replace

from semanticspec.decoding.pair import Model, Pair
from semanticspec.doctor.checks import Finding, check_pair
from semanticspec.engines.base import Capabilities
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.text.vocabulary import Vocabulary
from tests.support.scripted_pairs import FixedProbe, draft_says, target_says
from tests.support.vocabularies import make_vocabulary

OPENS = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>{% endif %}"
PLAIN = "{{ messages[0]['content'] }}"


def findings(
    target: Vocabulary | None = None, draft: Vocabulary | None = None, **changes: object
) -> dict[str, Finding]:
    target = target or make_vocabulary(template=PLAIN)
    draft = draft or make_vocabulary(template=PLAIN)
    pair = Pair(Model(ScriptedEngine(target_says, 9), target), Model(ScriptedEngine(draft_says, 9), draft))
    return {finding.subject: finding for finding in check_pair(replace(pair, **changes))}  # type: ignore[arg-type]


def test_a_pair_that_fits_has_no_problems():
    found = findings(target_probe=FixedProbe(0.5), draft_probe=FixedProbe(0.5))
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["vocabularies"].text == "token ids are exchanged"
    assert found["target's ends of text"].text == "<eos>"


def test_tokens_that_only_the_draft_has_are_named():
    found = findings(draft=make_vocabulary(added=("<eos>", "<think>", "</think>", "<tool>"), template=PLAIN))
    assert found["vocabularies"].text.endswith("only the draft has <tool>")


def test_the_padding_of_a_gguf_file_is_no_difference():
    found = findings(draft=make_vocabulary(padding=3, template=PLAIN))
    assert found["vocabularies"].text == "token ids are exchanged"


def test_different_vocabularies_cost_token_level_speculation():
    found = findings(draft=make_vocabulary(["d", "c", "b", "a"], template=PLAIN))
    assert found["vocabularies"].level == "note"
    assert "--rule token" in found["vocabularies"].text
    assert found["optimizations"].level == "note"


def test_a_template_that_only_one_model_has():
    found = findings(draft=make_vocabulary())
    assert (found["target's template"].level, found["draft's template"].level) == ("ok", "note")


def test_thinking_that_only_one_template_opens():
    found = findings(target=make_vocabulary(template=OPENS))
    assert found["thinking"].level == "problem"
    assert "the target's chat template opens <think>, the draft's does not" in found["thinking"].text


def test_blank_lines_of_two_tokens_need_an_engine_that_stops_at_pairs():
    vocabulary = make_vocabulary(blank_line=False, template=PLAIN)
    assert findings(target=vocabulary)["target's boundaries"].level == "ok"
    engine = ScriptedEngine(target_says, 9)
    engine.info = replace(engine.info, capabilities=Capabilities())
    found = findings(target=vocabulary, target_probe=None)
    pair = Pair(Model(engine, vocabulary), Model(ScriptedEngine(draft_says, 9), make_vocabulary()))
    found = {finding.subject: finding for finding in check_pair(pair)}
    assert found["target's boundaries"].level == "problem"
    assert found["optimizations"].level == "note"


def test_packaged_probes_that_fit_are_named():
    found = findings(fitting_probes={"some-pair": "A and B"})
    assert "--target-probe some-pair --draft-probe some-pair" in found["probes"].text
    assert "semanticspec probe run" in findings()["probes"].text


def test_a_shorter_context_of_the_draft_is_told():
    vocabulary = make_vocabulary(template=PLAIN)
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary),
        Model(ScriptedEngine(draft_says, 9, max_context_tokens=512), vocabulary),
    )
    found = {finding.subject: finding for finding in check_pair(pair)}
    assert found["context"].level == "note"
    assert "512" in found["context"].text
