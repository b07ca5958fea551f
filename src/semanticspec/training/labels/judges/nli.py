"""The paper's judge: two segments mean the same when a model of natural language inference says that each
entails the other.

As in the paper the model sees the texts of the two segments alone, neither prompt nor context: such models know
pairs of sentences, and most of them read 512 tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from semanticspec.errors import ConfigError, ModelError, first_line
from semanticspec.training.labels.judges.base import THINK_END, Question
from semanticspec.training.labels.judges.cache import VerdictCache

DEFAULT_NLI_MODEL = "microsoft/deberta-v2-xlarge-mnli"
"""Source: the paper."""
_LONGEST_PAIR = 512  # tokens; what these models were trained on


class EntailmentJudge:
    """Entailment both ways. The second way is asked only where the first one holds."""

    name = "nli"

    def __init__(
        self,
        model: str = DEFAULT_NLI_MODEL,
        device: str = "auto",
        batch_size: int = 32,
        cache: VerdictCache | None = None,
    ) -> None:
        """Reads the model's configuration; the weights are loaded when the first question is not in the cache.

        Raises:
            ConfigError: the model is no NLI judge, or the device is not there.
            ModelError: there is no such model.
        """
        self._model = NliModel(model, device, batch_size)
        self._cache = VerdictCache() if cache is None else cache
        self.identity = self._model.identity

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """An answer for each question, the same whichever segment comes first."""
        pairs = [(_plain(question.first), _plain(question.second)) for question in questions]
        forward = self._entails(pairs)
        kept = [pair[::-1] for pair, holds in zip(pairs, forward, strict=True) if holds]
        backward = iter(self._entails(kept))
        return [holds and next(backward) for holds in forward]

    def _entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each premise entails its hypothesis; only what is not in the cache is asked, once."""
        asked = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1] and self._known(pair) is None]
        asked.sort(key=lambda pair: len(pair[0]) + len(pair[1]))  # alike lengths share a batch
        for start in range(0, len(asked), self._model.batch_size):
            batch = asked[start : start + self._model.batch_size]
            said = self._model.entails(batch)
            self._cache.add({(self.identity, *pair): yes for pair, yes in zip(batch, said, strict=True)})
        return [first == second or bool(self._known((first, second))) for first, second in pairs]

    def _known(self, pair: tuple[str, str]) -> bool | None:
        return self._cache.get(self.identity, *pair)


class NliModel:
    """A sequence classifier by hub name or folder, and which of its labels says "entailment"."""

    def __init__(self, model: str, device: str, batch_size: int) -> None:
        from semanticspec.engines.transformers.loading import resolve_device

        if batch_size < 1:
            raise ConfigError(f"the batch size is {batch_size}; expected at least 1")
        self.model = model
        self._name = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
        self.batch_size = batch_size
        self.device = resolve_device(device)
        config = _read_config(model)
        self.entailment = entailment_label(model, config.id2label, config.label2id)
        self.identity = f"{model}@{_revision(model, config)}"

    def entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the most probable label of each (premise, hypothesis) is entailment, in one batch."""
        import torch

        tokenizer, network = self._loaded
        premises, hypotheses = zip(*pairs, strict=True)
        encoded = tokenizer(
            list(premises),
            list(hypotheses),
            padding=True,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        )
        if encoded["input_ids"].shape[1] >= self._max_length:
            warnings.warn(
                f"{self.model} reads {self._max_length} tokens; pairs of segments that are longer are cut there",
                stacklevel=2,
            )
        with torch.inference_mode():
            logits = network(**encoded.to(self.device)).logits
        return [bool(label == self.entailment) for label in logits.argmax(-1).tolist()]

    @cached_property
    def _max_length(self) -> int:
        tokenizer, network = self._loaded
        known = (
            tokenizer.model_max_length,
            getattr(network.config, "max_position_embeddings", _LONGEST_PAIR),
        )
        return min(_LONGEST_PAIR, *map(int, known))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and network.

        Raises:
            ModelError: files are missing or broken, or the classifier has no trained weights.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._name)
            network, report = AutoModelForSequenceClassification.from_pretrained(
                self._name, output_loading_info=True
            )
        except Exception as error:
            raise ModelError(
                f"cannot load the judge {self.model}: {first_line(error)}; if a tokenizer's package is missing: "
                "pip install 'semanticspec[probes]'"
            ) from error
        if missing := sorted(report["missing_keys"]):
            # transformers would go on with random numbers in their place.
            raise ModelError(f"{self.model} lacks {len(missing)} of its weights, among them {missing[0]}")
        return tokenizer, network.to(self.device).eval()


def entailment_label(model: str, id2label: Mapping[int, str], label2id: Mapping[str, int]) -> int:
    """The place of "entailment" among a model's labels, whatever their order.

    Raises:
        ConfigError: there is none, or not just one: the model is no NLI judge.
    """
    named = {int(place): str(label) for place, label in id2label.items()}
    found = {place for place, label in named.items() if _says_entailment(label)}
    found = found or {int(place) for label, place in label2id.items() if _says_entailment(label)}
    if len(found) != 1 or len(named) < 2:
        labels = ", ".join(named.values()) or "none"
        raise ConfigError(
            f"{model} is no NLI judge: its labels are {labels}; expected one that says entailment, "
            f"as of {DEFAULT_NLI_MODEL}"
        )
    return found.pop()


def _says_entailment(label: str) -> bool:
    """`entailment`, `ENTAILMENT` or `entails`, and not `not_entailment`."""
    return label.strip().lower().startswith("entail")


def _plain(text: str) -> str:
    return text.replace(THINK_END, " ").strip()


def _read_config(model: str) -> Any:
    from transformers import AutoConfig

    path = Path(model).expanduser()
    if model.startswith((".", "/", "~")) and not (path / "config.json").is_file():
        raise ModelError(
            f"there is no model in {model!r}; expected a folder with a config.json, or a hub name"
        )
    try:
        return AutoConfig.from_pretrained(str(path) if path.is_dir() else model)
    except OSError as error:
        raise ModelError(
            f"cannot find the judge {model!r}: no such folder here, and the hub does not give it out; "
            "check the name and the network"
        ) from error
    except Exception as error:
        raise ModelError(f"{model} is no model transformers knows: {first_line(error)}") from error


def _revision(model: str, config: Any) -> str:
    """The hub's commit; for a folder a digest of its configuration and of its weights' names and sizes."""
    from hashlib import sha256

    folder = Path(model).expanduser()
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None) or "")
    digest = sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
