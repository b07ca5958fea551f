"""The judge `nli`, the paper's: two segments mean the same if a classifier says that each entails the other.

As in the paper, the classifier reads the two segments only, without the prompt and the output so far: models for
natural language inference (NLI) are trained on pairs of sentences, and most of them are limited to 512 tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from semanticspec.errors import ConfigError, ModelError, first_line
from semanticspec.hub import hub_or_cache
from semanticspec.install_hints import install_hint
from semanticspec.training.labels.judges.base import Question, without_think_end
from semanticspec.training.labels.judges.cache import VerdictCache

DEFAULT_NLI_MODEL = "microsoft/deberta-v2-xlarge-mnli"
"""Source: the paper."""
_MAX_PAIR_TOKENS = 512  # the length these models are trained on


class EntailmentJudge:
    """Tests entailment in both directions; the second direction only where the first one holds."""

    name = "nli"

    def __init__(
        self,
        model: str = DEFAULT_NLI_MODEL,
        device: str = "auto",
        batch_size: int = 32,
        cache: VerdictCache | None = None,
    ) -> None:
        """Reads the model's configuration. The weights are loaded when the first question is not in the cache.

        Args:
            model: hub name or folder of a sequence classifier with a label for entailment.
            device: auto, cpu, cuda, cuda:N or mps.
            batch_size: pairs per forward pass, >= 1.
            cache: verdicts given before; None keeps them in memory.

        Raises:
            ConfigError: the model is not an NLI classifier, or an argument is out of range.
            ModelError: the model cannot be found.
        """
        from transformers import AutoConfig

        from semanticspec.engines.transformers.loading import folder_digest, resolve_device

        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        folder = Path(model).expanduser()
        self.model, self.batch_size, self.device = model, batch_size, resolve_device(device)
        self._path = str(folder) if folder.is_dir() else model
        self._cache = VerdictCache() if cache is None else cache
        try:
            with hub_or_cache((self._path,)):
                config = AutoConfig.from_pretrained(self._path)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"cannot read the configuration of the judge {model!r} ({first_line(error)}); expected a folder "
                "with a config.json, or a hub name"
            ) from error
        self._entailment = entailment_label(model, config.id2label, config.label2id)
        revision = folder_digest(folder) if folder.is_dir() else getattr(config, "_commit_hash", None) or ""
        self.identity = f"{model}@{revision}"

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """Answers each question; the order of its two segments does not matter."""
        pairs = [(without_think_end(one.first), without_think_end(one.second)) for one in questions]
        forward = self._entails(pairs)
        backward = iter(self._entails([pair[::-1] for pair, yes in zip(pairs, forward, strict=True) if yes]))
        return [yes and next(backward) for yes in forward]

    def _entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Returns whether each premise entails its hypothesis; the model sees only pairs that are not cached."""
        asked = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1] and self._cached(pair) is None]
        asked.sort(key=lambda pair: len(pair[0]) + len(pair[1]))  # less padding
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            verdicts = zip(batch, self.classify(batch), strict=True)
            self._cache.add({(self.identity, *pair): yes for pair, yes in verdicts})
        return [first == second or bool(self._cached((first, second))) for first, second in pairs]

    def _cached(self, pair: tuple[str, str]) -> bool | None:
        return self._cache.get(self.identity, *pair)

    def classify(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Returns whether entailment is the most probable label of each (premise, hypothesis), in one batch."""
        import torch

        tokenizer, network, max_tokens = self._loaded
        premises, hypotheses = map(list, zip(*pairs, strict=True))
        encoded = tokenizer(
            premises, hypotheses, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        )
        if encoded["input_ids"].shape[1] >= max_tokens:
            warnings.warn(
                f"{self.model} reads at most {max_tokens} tokens; longer pairs of segments are truncated",
                stacklevel=2,
            )
        with torch.inference_mode():
            labels = network(**encoded.to(self.device)).logits.argmax(-1)
        return [label == self._entailment for label in labels.tolist()]

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        """The tokenizer, the network, and the maximum length of a pair in tokens.

        Raises:
            ModelError: files are missing or broken, or the classifier has no trained weights.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._path)
            network, report = AutoModelForSequenceClassification.from_pretrained(
                self._path, output_loading_info=True
            )
        except Exception as error:
            raise ModelError(
                f"cannot load the judge {self.model}: {first_line(error)}; if its tokenizer needs a package: "
                f"{install_hint('probes')}"
            ) from error
        if missing := sorted(report["missing_keys"]):  # transformers initializes these at random
            raise ModelError(f"{self.model} lacks {len(missing)} of its weights, among them {missing[0]}")
        max_positions = getattr(network.config, "max_position_embeddings", _MAX_PAIR_TOKENS)
        max_tokens = min(_MAX_PAIR_TOKENS, tokenizer.model_max_length, max_positions)
        return tokenizer, network.to(self.device).eval(), int(max_tokens)


def entailment_label(model: str, id2label: Mapping[int, str], label2id: Mapping[str, int]) -> int:
    """Returns the index of the label "entailment", whatever the order of the labels.

    Raises:
        ConfigError: there is not exactly one such label.
    """
    labels = {int(index): str(label) for index, label in id2label.items()}
    found = {index for index, label in labels.items() if _means_entailment(label)}
    found = found or {int(index) for label, index in label2id.items() if _means_entailment(label)}
    if len(found) != 1 or len(labels) < 2:
        raise ConfigError(
            f"{model} is not an NLI classifier: its labels are {', '.join(labels.values()) or 'none'}; expected "
            f"exactly one that starts with 'entail', as in {DEFAULT_NLI_MODEL}"
        )
    return found.pop()


def _means_entailment(label: str) -> bool:
    """Accepts `entailment`, `ENTAILMENT` and `entails`, but not `not_entailment`."""
    return label.strip().lower().startswith("entail")
