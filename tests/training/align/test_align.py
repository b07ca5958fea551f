"""An alignment of the bundled pair: killed and resumed, and better than before."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semanticspec import demo
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError, ModelError, ProbeError
from semanticspec.loading import load_model, load_pair
from semanticspec.probes.probe import Probe, network_of
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Sampling, Stop
from semanticspec.training.align import lora
from semanticspec.training.align.align import ADAPTER_FOLDER, MERGED_FOLDER, Alignment, AlignModels
from semanticspec.training.align.answers import Answers
from semanticspec.training.align.settings import AlignConfig, AnswerSettings
from tests.support.collecting import make_card
from tests.support.demo_problems import demo_grammar_problems

pytest.importorskip("peft", reason="needs peft, of the extra align")

MODELS = AlignModels(str(demo.target_path()), str(demo.draft_path()))
SETTINGS = AnswerSettings(sampling=Sampling(1.0, 0.95), max_new_tokens=60)
CONFIG = AlignConfig(max_epochs=3, rank=8, alpha=16, learning_rate=3e-3, batch_tokens=1024, patience=3)


def problems(count: int = 40) -> list[ProblemText]:
    return [
        ProblemText(f"p{i}", p.text, gold=str(p.answer)) for i, p in enumerate(demo_grammar_problems(count))
    ]


def alignment(folder: Path, config: AlignConfig = CONFIG, count: int = 40) -> Alignment:
    return Alignment(MODELS, problems(count), SETTINGS, config, folder)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned")
    alignment(folder).run(merged=True)
    return folder


def report_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / ADAPTER_FOLDER / "alignment.json").read_text())


def test_the_draft_says_more_of_what_the_target_says(aligned):
    report = report_of(aligned)
    assert report["after"]["acceptance"]["probability"] > report["before"]["acceptance"]["probability"]
    steps = [evaluation["step"] for evaluation in report["validation"]]
    assert steps[0] == 0
    assert steps == sorted(steps)


def test_answers_hold_what_the_target_drew_from(aligned):
    answers = Answers(aligned / "answers").read()
    assert len(answers) == 40
    target = load_model(MODELS.target)
    answer = answers[0]
    problem = next(p for p in problems() if p.problem_id == answer.problem_id)
    (generation,) = asyncio.run(
        target.engine.generate(
            target.vocabulary.render_prompt(problem.prompt),
            max_tokens=SETTINGS.max_new_tokens,
            stop=target.segmenter.text_stop,
            sampling=SETTINGS.sampling,
            seed=derived_seed(0, "align", answer.problem_id, 0),
            distributions=True,
        )
    )
    assert generation.token_ids == answer.token_ids
    for stored, drawn in zip(answer.distributions, generation.distributions, strict=True):
        assert stored.token_ids.tolist() == drawn.token_ids.tolist()
        assert stored.probabilities == pytest.approx(drawn.probabilities, abs=1e-4)


def test_adapter_and_merged_folder_give_the_same_numbers(aligned):
    context, continuation = [5, 6, 7, 8], [9, 10, 11]
    scores = []
    for model, engine in (
        (MODELS.draft, f"transformers:adapter={aligned / ADAPTER_FOLDER}"),
        (str(aligned / MERGED_FOLDER), "transformers"),
        (MODELS.draft, "transformers"),
    ):
        loaded = load_model(model, engine=engine)
        (score,) = asyncio.run(loaded.engine.score(context, [continuation]))
        scores.append((loaded.engine.info.adapter, torch.tensor(score.logprobs)))
    (with_adapter, one), (in_folder, other), (without, plain) = scores
    assert with_adapter == in_folder == report_of(aligned)["adapter"]
    assert without == ""
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert (one - plain).abs().max() > 0.01


def test_a_gguf_file_holds_the_adapter(aligned, tmp_path):
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    from semanticspec.demo.gguf import write_gguf

    base, folder = tmp_path / "draft.gguf", tmp_path / "again"
    write_gguf(demo.draft_path(), base)
    shutil.copytree(aligned, folder)
    alignment(folder).run(gguf=base)
    context, continuation = [5, 6, 7, 8], [9, 10, 11]
    found = []
    for model in (str(folder / "draft-aligned.gguf"), str(aligned / MERGED_FOLDER)):
        loaded = load_model(model, dtype="float32")
        (score,) = asyncio.run(loaded.engine.score(context, [continuation]))
        found.append((loaded.engine.info.adapter, torch.tensor(score.logprobs)))
    (in_file, one), (in_folder, other) = found
    assert in_file == in_folder != ""
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_a_gguf_file_of_another_model_is_refused(aligned, tmp_path):
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    from semanticspec.demo.gguf import write_gguf

    base, folder = tmp_path / "target.gguf", tmp_path / "again"
    write_gguf(demo.target_path(), base)
    shutil.copytree(aligned, folder)
    with pytest.raises(ModelError, match="another model"):
        alignment(folder).run(gguf=base)


def test_training_that_was_killed_ends_with_the_same_adapter(aligned, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    shutil.copytree(aligned / "answers", folder / "answers")
    steps = []

    class Killed(BaseException):
        pass

    step = lora.LoraTrainer._step

    def deadly(self, *arguments):
        if len(steps) == 3:
            raise Killed
        steps.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(lora, "_STEPS_PER_CHECKPOINT", 2)
    monkeypatch.setattr(lora.LoraTrainer, "_step", deadly)
    with pytest.raises(Killed):
        alignment(folder).run()
    monkeypatch.setattr(lora.LoraTrainer, "_step", step)
    alignment(folder).run()
    assert report_of(folder)["adapter"] == report_of(aligned)["adapter"]


def test_a_second_run_does_nothing_again(aligned, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("trains or answers again")

    monkeypatch.setattr(lora.LoraTrainer, "_step", fail)
    before = report_of(aligned)
    alignment(aligned).run()
    assert report_of(aligned)["adapter"] == before["adapter"]


def test_answers_of_other_settings_are_refused(aligned):
    other = replace(SETTINGS, max_new_tokens=61)
    with pytest.raises(ProbeError, match="max_new_tokens"):
        Alignment(MODELS, problems(41), other, CONFIG, aligned).run()


def test_a_probe_of_the_draft_is_refused_for_the_aligned_draft():
    draft = load_model(MODELS.draft)
    info = draft.engine.info
    card = make_card(
        role="draft",
        hidden_size=info.hidden_size,
        num_layers=info.num_layers,
        fingerprint=draft.vocabulary.fingerprint,
        revision="",
    )
    probe = Probe(card, network_of(card))
    assert probe.check(info, draft.vocabulary.fingerprint, "draft") == []
    with pytest.raises(ProbeError, match="adapter none instead of abc; load the draft without its adapter"):
        probe.check(replace(info, adapter="abc"), draft.vocabulary.fingerprint, "draft")
    of_aligned = Probe(replace(card, adapter="abc"), network_of(card))
    with pytest.raises(ProbeError, match=r"load the draft with that adapter \(semanticspec draft merge\)"):
        of_aligned.check(info, draft.vocabulary.fingerprint, "draft")


def test_the_aligned_draft_works_in_a_pair(aligned):
    pair = load_pair(
        MODELS.target, MODELS.draft, draft_engine=f"transformers:adapter={aligned / ADAPTER_FOLDER}"
    )
    (generation,) = asyncio.run(
        pair.draft.engine.generate([5, 6], max_tokens=3, stop=Stop(), sampling=Sampling())
    )
    assert len(generation.token_ids) == 3


def test_an_adapter_of_another_model_is_refused(aligned):
    with pytest.raises(ModelError, match="does not fit"):
        load_model(MODELS.target, engine=f"transformers:adapter={aligned / ADAPTER_FOLDER}")


def test_a_folder_without_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_model(MODELS.draft, engine=f"transformers:adapter={tmp_path}")


def test_too_few_problems_for_every_split_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="use more problems"):
        alignment(tmp_path, count=1).run()
