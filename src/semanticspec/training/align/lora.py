"""Trains an adapter of the draft by LoRA. Interrupted training resumes from its last checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.install_hints import install_hint
from semanticspec.training.align.examples import Batch, Example, batches, collate
from semanticspec.training.align.losses import position_losses
from semanticspec.training.align.settings import AlignConfig, Loss

CHECKPOINT_FILE = "checkpoint.pt"
_CHUNK_POSITIONS = 256  # logits of so many positions are in memory at once
_WARMUP_SHARE = 0.05
_MAX_GRADIENT_NORM = 1.0
_STEPS_PER_CHECKPOINT = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Acceptance on the validation problems after so many steps; 0 = before training."""

    step: int
    acceptance: float


@dataclass
class Progress:
    """Where training stands. `best` is the adapter with the highest acceptance so far."""

    step: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_evaluation(self) -> Evaluation:
        return max(self.evaluations, key=lambda evaluation: evaluation.acceptance)

    @property
    def num_without_gain(self) -> int:
        """Evaluations since the best one."""
        return len(self.evaluations) - 1 - self.evaluations.index(self.best_evaluation)


def require_peft() -> None:
    """Raises ConfigError if peft is not installed."""
    if find_spec("peft") is None:
        raise ConfigError(f"aligning a draft needs peft: {install_hint('align')}")


def add_lora(model: Any, config: AlignConfig) -> Any:
    """Returns the model with LoRA on all linear layers except the head, ready to train."""
    require_peft()
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


class LoraTrainer:
    """Trains the adapter of one model."""

    def __init__(
        self,
        model: Any,
        training: Sequence[Example],
        validation: Sequence[Example],
        config: AlignConfig,
        temperature: float,
        folder: Path,
    ) -> None:
        """Args:
        model: what `add_lora` returned.
        temperature: of serving; 0 (greedy) trains at 1.
        folder: where checkpoints go.

        Raises:
            ConfigError: there are no examples, or the loss needs distributions that they do not have.
        """
        if not training or not validation:
            missing = "training" if not training else "validation"
            raise ConfigError(f"there are no answers to {missing} problems; answer more problems")
        if config.loss != "tokens" and not all(example.distributions for example in (*training, *validation)):
            raise ConfigError(
                f"the loss {config.loss} needs the target's distributions, which its engine does not return or whose "
                "tokens the draft does not share; use the loss tokens"
            )
        self.progress = Progress()
        self._model, self._training, self._validation = model, list(training), list(validation)
        self._config, self._temperature = config, temperature or 1.0
        self._checkpoint = folder / CHECKPOINT_FILE
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=config.learning_rate, weight_decay=0.0)
        self._steps_of_epochs = [sum(1 for _ in self._batches(epoch)) for epoch in range(config.max_epochs)]
        self._schedule = self._make_schedule()

    @property
    def num_steps(self) -> int:
        """Steps without early stopping."""
        return sum(self._steps_of_epochs)

    def train(self, on_step: Callable[[str], None] = lambda _: None) -> Progress:
        """Trains to the end, from the last checkpoint if there is one; the model then has the best adapter.

        Args:
            on_step: called after each step with a note, also for steps before the checkpoint.

        Raises:
            ProbeError: the checkpoint is broken, of other settings, or cannot be written.
        """
        self._resume()
        for _ in range(self.progress.step):
            on_step("")
        if not self.progress.evaluations:
            self._evaluate()
        for step, loss_name, examples in self._steps_left():
            loss, acceptance = self._step(examples, loss_name)
            self.progress.step = step + 1
            on_step(f"loss {loss:.3f}, acceptance {acceptance:.3f}; validation {self._best():.3f}")
            if self._is_evaluated(step + 1):
                self._evaluate()
                self._save()
                if self.progress.num_without_gain >= self._config.patience:
                    break
            elif (step + 1) % _STEPS_PER_CHECKPOINT == 0:
                self._save()
        self._load_adapter(self.progress.best)
        return self.progress

    def _steps_left(self) -> Iterator[tuple[int, Loss, list[Example]]]:
        """Yields number, loss and batch of the steps that are not done yet."""
        if self.progress.num_without_gain >= self._config.patience:
            return
        step = 0
        for epoch in range(self._config.max_epochs):
            loss: Loss = "tokens" if epoch < self._config.token_epochs else self._config.loss
            for examples in self._batches(epoch):
                if step >= self.progress.step:
                    yield step, loss, examples
                step += 1

    def _batches(self, epoch: int) -> Iterator[list[Example]]:
        random = Random(f"{self._config.seed}:{epoch}")
        return batches(self._training, self._config.batch_tokens, random)

    def _is_evaluated(self, num_steps: int) -> bool:
        every = max(1, self._steps_of_epochs[0] // self._config.evaluations_per_epoch)
        return num_steps % every == 0 or num_steps == self.num_steps

    def _step(self, examples: Sequence[Example], loss: Loss) -> tuple[float, float]:
        self._model.train()
        losses, acceptances = self._forward(collate(examples), loss)
        mean = losses.mean()
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(mean)
        torch.nn.utils.clip_grad_norm_(self._parameters, _MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        return float(mean.detach()), float(acceptances.mean())

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Measures the acceptance on the validation problems, and keeps the adapter if it is the best."""
        self._model.eval()
        total, count = 0.0, 0
        for examples in batches(self._validation, self._config.batch_tokens, None):
            _, acceptances = self._forward(collate(examples), self._config.loss)
            total, count = total + float(acceptances.sum()), count + len(acceptances)
        found = Evaluation(self.progress.step, total / count)
        if not self.progress.evaluations or found.acceptance > self._best():
            self.progress.best = {name: value.clone() for name, value in self._adapter().items()}
        self.progress.evaluations.append(found)

    def _best(self) -> float:
        return self.progress.best_evaluation.acceptance

    def _forward(self, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor]:
        """Returns losses and acceptance probabilities of all positions."""
        base = self._model.get_base_model()
        device = next(base.parameters()).device
        states = (
            base.get_decoder()(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                use_cache=False,
            )
            .last_hidden_state[batch.places[:, 0], batch.places[:, 1]]
        )  # fmt: skip
        columns = [batch.token_ids, batch.nucleus_ids, batch.nucleus]
        chunks = [
            checkpoint(
                self._losses_of_states,
                states[start : start + _CHUNK_POSITIONS],
                loss,
                *(
                    None if column is None else column[start : start + _CHUNK_POSITIONS].to(device)
                    for column in columns
                ),
                use_reentrant=False,
            )
            for start in range(0, len(states), _CHUNK_POSITIONS)
        ]
        losses, acceptances = zip(*chunks, strict=True)
        return torch.cat(losses), torch.cat(acceptances)

    def _losses_of_states(
        self,
        states: Tensor,
        loss: Loss,
        token_ids: Tensor,
        nucleus_ids: Tensor | None,
        nucleus: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        base = self._model.get_base_model()
        logits = base.get_output_embeddings()(states).float()
        cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return position_losses(loss, logits / self._temperature, token_ids, nucleus_ids, nucleus)

    def _make_schedule(self) -> Any:
        from transformers import get_cosine_schedule_with_warmup

        return get_cosine_schedule_with_warmup(
            self._optimizer, int(_WARMUP_SHARE * self.num_steps), self.num_steps
        )

    def _adapter(self) -> dict[str, Tensor]:
        from peft import get_peft_model_state_dict

        found: dict[str, Tensor] = get_peft_model_state_dict(self._model)
        return found

    def _load_adapter(self, values: dict[str, Tensor]) -> None:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self._model, values)

    def _inputs(self) -> str:
        """A digest of what training depends on."""
        digest = hashlib.sha256(json.dumps([asdict(self._config), self._temperature]).encode())
        for example in (*self._training, *self._validation):
            digest.update(repr((example.prompt_ids, example.answer_ids)).encode())
        return digest.hexdigest()

    def _save(self) -> None:
        state = {
            "inputs": self._inputs(),
            "progress": asdict(self.progress),
            "adapter": self._adapter(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": torch.get_rng_state(),
        }
        part = self._checkpoint.with_suffix(".part")
        try:
            torch.save(state, part)
            part.replace(self._checkpoint)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise ProbeError(
                f"{self._checkpoint} cannot be written: {error}; the last checkpoint is kept, free some space and "
                "rerun the same command"
            ) from error

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        try:
            state = torch.load(self._checkpoint, weights_only=True)
            matches = state["inputs"] == self._inputs()
        except Exception as error:
            raise ProbeError(
                f"{self._checkpoint} is broken ({error}); delete it to train from the start"
            ) from error
        if not matches:
            return  # other answers or settings: train from the start
        progress = state["progress"]
        evaluations = [Evaluation(**each) for each in progress["evaluations"]]
        self.progress = Progress(progress["step"], evaluations, progress["best"])
        self._load_adapter(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
