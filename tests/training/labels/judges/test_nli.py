"""The judge `nli`, with tiny classifiers that have random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from semanticspec.errors import ConfigError, ModelError
from semanticspec.training.labels.judges.cache import VerdictCache
from semanticspec.training.labels.judges.nli import EntailmentJudge, entailment_label
from semanticspec.training.labels.judges.numeric_nli import NumericAndEntailmentJudge
from tests.support.judging import NLI_LABELS, PAIRS, Always, ask, make_nli


@pytest.fixture(scope="module")
def classes(nli_folder: Path) -> dict[tuple[str, str], int]:
    """The most probable class of each pair, computed by transformers alone, one pair at a time."""
    network = BertForSequenceClassification.from_pretrained(nli_folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(nli_folder)
    with torch.inference_mode():
        return {
            pair: int(network(**tokenizer(*pair, return_tensors="pt")).logits.argmax())
            for pair in [*PAIRS, *(pair[::-1] for pair in PAIRS)]
        }


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_entailment_is_found_by_its_label(
    tmp_path: Path, order: tuple[int, ...], classes: dict[tuple[str, str], int]
) -> None:
    """With the labels in another order, the same weights have entailment at another index."""
    folder = make_nli(tmp_path / "model", [NLI_LABELS[i].upper() for i in order])
    place = order.index(2)
    judge = EntailmentJudge(str(folder), device="cpu", batch_size=7)
    expected = [classes[pair] == classes[pair[::-1]] == place for pair in PAIRS]
    assert judge.same([ask(*pair) for pair in PAIRS]) == expected
    assert judge.same([ask(*pair[::-1]) for pair in PAIRS]) == expected


def test_the_tiny_classifier_says_yes_and_no(classes: dict[tuple[str, str], int]) -> None:
    """Otherwise the test above would prove nothing."""
    for place in range(3):
        assert any((classes[pair] == place) != (classes[pair[::-1]] == place) for pair in PAIRS)
    assert any(classes[pair] == classes[pair[::-1]] for pair in PAIRS)


def test_entailment_is_asked_once(tmp_path: Path, nli_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    classify = EntailmentJudge.classify

    def recording(self: EntailmentJudge, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        asked.extend(pairs)
        return classify(self, pairs)

    monkeypatch.setattr(EntailmentJudge, "classify", recording)
    questions = [ask(*pair) for pair in PAIRS] + [ask("a b", "a b"), ask("a b ", "a b\n\n")]
    cache = tmp_path / "verdicts.jsonl"
    first = EntailmentJudge(str(nli_folder), cache=VerdictCache(cache)).same([*questions, *questions])
    assert len(asked) == len(set(asked))
    assert ("a b", "a b") not in asked
    assert first[-2:] == [True, True]
    backward = [pair for pair in asked if pair[::-1] in asked]
    assert len(asked) < 2 * len(PAIRS)  # the second direction only where the first one holds
    assert backward
    count = len(asked)
    again = EntailmentJudge(str(nli_folder), cache=VerdictCache(cache))
    assert again.same([*questions, *questions]) == first
    assert len(asked) == count


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1"),
        ("negative", "positive"),
        ("entailment", "entails"),
        ("not_entailment", "other"),
    ],
)
def test_other_classifiers_are_refused(tmp_path: Path, labels: Sequence[str]) -> None:
    """By their configuration, before any weights are loaded."""
    folder = make_nli(tmp_path / "model", labels)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="is not an NLI classifier") as caught:
        EntailmentJudge(str(folder))
    assert labels[0] in str(caught.value)


def test_labels_of_two_way_models() -> None:
    assert entailment_label("m", {0: "entailment", 1: "not_entailment"}, {}) == 0
    assert entailment_label("m", {0: "LABEL_0", 1: "LABEL_1"}, {"no": 0, "entailment": 1}) == 1


def test_broken_judges(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the configuration of the judge .*none.*config\.json"):
        EntailmentJudge(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot read the configuration of the judge 'nobody/no-such-judge'"):
        EntailmentJudge("nobody/no-such-judge")
    with pytest.raises(ConfigError, match="device"):
        EntailmentJudge(str(make_nli(tmp_path / "a")), device="cuda:99")
    headless = make_nli(tmp_path / "b")
    config = BertConfig.from_pretrained(headless)
    BertModel(config).save_pretrained(headless)
    config.save_pretrained(headless)
    with pytest.raises(ModelError, match="lacks 2 of its weights"):
        EntailmentJudge(str(headless)).same([ask("a", "b")])


def test_long_pairs_are_truncated_with_a_warning(tmp_path: Path) -> None:
    judge = EntailmentJudge(str(make_nli(tmp_path / "model", max_positions=16)))
    with pytest.warns(UserWarning, match="reads at most 16 tokens"):
        judge.same([ask("a " * 30, "b " * 30)])


def test_numbers_decide_before_entailment() -> None:
    entailment = Always()
    judge = NumericAndEntailmentJudge(entailment)
    questions = [ask("3 + 4 = 7", "4 + 3 = 7"), ask("3", "4"), ask("so", "then"), ask("so", "so 5")]
    assert judge.same(questions) == [True, False, True, False]
    assert entailment.asked == [questions[0], questions[2]]
    assert judge.name == "numeric+always"
