"""Trains the demo's models from scratch: `python -m experiments.demo_pair.train target|draft --minutes M --out DIR`.

The target begins with half of its layers and doubles them on the way: new layers start as identities, so nothing
learned is lost and the cheap first part sees more text. The clock, not a step count, drives the learning rate.
Interrupted training resumes from its last checkpoint: rerun the same command.

On a few cores, one process per core learns faster than one process with many threads:
`torchrun --nproc-per-node 2 -m experiments.demo_pair.train target --threads 1 ...` shares each batch among processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.demo_pair.tokenizer import pair_tokenizer
from experiments.demo_pair.training_data import IGNORED, Sequence, batches, sequences
from semanticspec.demo.meanings import StyleName


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape of a model and how it is trained; learning rates at their peak.

    Attributes:
        style: Whose wordings the model learns.
        num_layers: Layers at the end of training.
        first_layers: Layers at the start; must divide `num_layers`.
        grow_at: Progress (0..1) at which the remaining layers come in.
        tokens_per_batch: Tokens of one step, padding included.
        drill_until: Progress up to which many sequences are bare sums.
        digit_weight: Weight of digit tokens in the loss, against 1 for all others.
    """

    style: StyleName
    hidden_size: int
    intermediate_size: int
    num_layers: int
    first_layers: int
    num_heads: int
    grow_at: float = 0.4
    tokens_per_batch: int = 8192
    muon_rate: float = 6e-3
    adam_rate: float = 4e-3
    drill_until: float = 0.12
    early_drill_share: float = 0.5
    late_drill_share: float = 0.04
    digit_weight: float = 3.0
    seed: int = 0


RECIPES = {
    "target": Recipe("target", 96, 192, num_layers=16, first_layers=8, num_heads=4),
    "draft": Recipe("draft", 64, 160, num_layers=2, first_layers=2, num_heads=4),
}
CHECKPOINT_S = 120.0
EXPORT_S = 600.0
WARM_UP = 0.02


class Run:
    """One training run: model, optimizers and clock; `step` is the only thing that changes them."""

    def __init__(self, recipe: Recipe, minutes: float, out: Path) -> None:
        self.recipe, self.total_s, self.out = recipe, minutes * 60, out
        self.tokenizer = pair_tokenizer()
        digits = [token for word, token in self.tokenizer.get_vocab().items() if word.lstrip("Ġ").isdigit()]
        self.weights = torch.ones(len(self.tokenizer))
        self.weights[digits] = recipe.digit_weight
        self.elapsed_s, self.num_steps = 0.0, 0
        torch.manual_seed(recipe.seed)
        self.set_model(build_model(recipe, recipe.first_layers, self.tokenizer))

    def set_model(self, model: LlamaForCausalLM) -> None:
        """Creates optimizers for a model."""
        self.model = model
        self.optimizers = build_optimizers(model, self.recipe)

    @property
    def progress(self) -> float:
        """Share of the training time that is used, 0..1."""
        return min(1.0, self.elapsed_s / self.total_s)

    def step(self, group: list[Sequence]) -> float:
        """Trains on one batch; returns its loss in nats per weighted token."""
        started = time.monotonic()
        rate = min(1.0, self.progress / WARM_UP) * (1.0 - self.progress)
        loss = batch_loss(self.model, _share(group), self.weights)
        loss.backward()  # type: ignore[no-untyped-call]
        _average([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in zip(
            self.optimizers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True
        ):
            for parameters in optimizer.param_groups:
                parameters["lr"] = peak * max(rate, 1e-3)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1
        self.elapsed_s = _latest(self.elapsed_s + time.monotonic() - started)
        if (
            self.progress >= self.recipe.grow_at
            and self.model.config.num_hidden_layers < self.recipe.num_layers
        ):
            self.set_model(grow(self.model, self.recipe.num_layers))
        return float(loss.detach())

    def save(self) -> None:
        """Writes the checkpoint; the file is replaced in one move. Only the first process writes."""
        if not _is_first():
            return
        state = {
            "num_layers": self.model.config.num_hidden_layers,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "elapsed_s": self.elapsed_s,
            "num_steps": self.num_steps,
        }
        partial = self.out / "checkpoint.part"
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")

    def resume(self) -> None:
        """Loads the checkpoint in the output folder, if there is one."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.set_model(build_model(self.recipe, state["num_layers"], self.tokenizer))
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.elapsed_s, self.num_steps = state["elapsed_s"], state["num_steps"]


def build_model(recipe: Recipe, num_layers: int, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Creates an untrained model, its vocabulary padded to a multiple of 32."""
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=1024,
        initializer_range=recipe.hidden_size**-0.5 / 2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def grow(model: LlamaForCausalLM, num_layers: int) -> LlamaForCausalLM:
    """Doubles (or multiplies) the layers; each new one follows an old one and at first changes nothing."""
    config = LlamaConfig(**{**model.config.to_dict(), "num_hidden_layers": num_layers})
    config.layer_types = None
    grown = LlamaForCausalLM(config)
    factor = num_layers // model.config.num_hidden_layers
    with torch.no_grad():
        grown.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight)
        grown.model.norm.weight.copy_(model.model.norm.weight)
        for index, layer in enumerate(grown.model.layers):
            if index % factor == 0:
                layer.load_state_dict(model.model.layers[index // factor].state_dict())
            else:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
    return grown


def build_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    others = [model.model.embed_tokens.weight, *(weight for weight in model.parameters() if weight.ndim == 1)]
    muon = torch.optim.Muon(
        matrices, lr=recipe.muon_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return muon, adam


def batch_loss(model: LlamaForCausalLM, group: list[Sequence], weights: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of a batch; logits are computed only where there is something to learn.

    Sequences are padded on the right, so plain causal attention needs no mask.
    """
    width = max(len(sequence.ids) for sequence in group)
    ids = torch.tensor([sequence.ids + [0] * (width - len(sequence.ids)) for sequence in group])
    labels = torch.tensor([sequence.labels + [IGNORED] * (width - len(sequence.ids)) for sequence in group])
    states = model.model(ids[:, :-1], use_cache=False).last_hidden_state  # [batch, seq, hidden]
    chosen = labels[:, 1:] != IGNORED
    logits = model.lm_head(states[chosen])[:, : len(weights)]  # [learned tokens, vocabulary]
    return F.cross_entropy(logits, labels[:, 1:][chosen], weight=weights)


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _share(group: list[Sequence]) -> list[Sequence]:
    """Returns this process's part of a batch; all of it with a single process."""
    return group[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else group


def _average(gradients: list[torch.Tensor]) -> None:
    """Replaces gradients by their mean over all processes."""
    if dist.is_initialized():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _latest(elapsed_s: float) -> float:
    """Returns the time of the slowest process, so that all have the same learning rate and stop together."""
    if not dist.is_initialized():
        return elapsed_s
    slowest = torch.tensor(elapsed_s, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest)


def export(run: Run) -> None:
    """Writes model and tokenizer in transformers format to `OUT/model`, replacing the folder in one move."""
    if not _is_first():
        return
    ready, partial, old = (run.out / name for name in ("model", "model.part", "model.old"))
    shutil.rmtree(partial, ignore_errors=True)
    run.model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        eos_token_id=run.tokenizer.eos_token_id,
        pad_token_id=run.tokenizer.pad_token_id,
    )
    run.model.save_pretrained(partial)
    for name in ("is_local", "local_files_only"):  # describe this machine, not the model
        run.tokenizer.init_kwargs.pop(name, None)
    run.tokenizer.save_pretrained(partial)
    (partial / "training.json").write_text(json.dumps(_history(run), indent=2) + "\n")
    if ready.exists():
        ready.rename(old)
    partial.rename(ready)
    shutil.rmtree(old, ignore_errors=True)


def _history(run: Run) -> dict[str, Any]:
    return {
        "recipe": asdict(run.recipe),
        "minutes": round(run.elapsed_s / 60, 2),
        "planned_minutes": round(run.total_s / 60, 2),
        "steps": run.num_steps,
    }


def train(recipe: Recipe, minutes: float, out: Path, stop: Callable[[], bool] = lambda: False) -> Run:
    """Trains until `minutes` of computing are used up (or `stop` says so), printing a line every 50 steps."""
    out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, minutes, out)
    run.resume()
    saved = exported = run.elapsed_s
    tokens, since, losses = 0, time.monotonic(), [0.0]
    while run.progress < 1 and not stop():
        rng = random.Random(f"{recipe.seed}-{recipe.style}-{run.num_steps}")
        share = recipe.early_drill_share if run.progress < recipe.drill_until else recipe.late_drill_share
        for group in batches(
            sequences(recipe.style, share, rng, run.tokenizer), recipe.tokens_per_batch, rng
        ):
            losses.append(run.step(group))
            tokens += sum(len(sequence.ids) for sequence in group)
            if run.num_steps % 50 == 0 and _is_first():
                _report(run, losses[-50:], tokens / (time.monotonic() - since))
                tokens, since = 0, time.monotonic()
            if run.elapsed_s - saved > CHECKPOINT_S:
                run.save()
                saved = run.elapsed_s
            if run.elapsed_s - exported > EXPORT_S:
                export(run)
                exported = run.elapsed_s
            if run.progress >= 1:
                break
    run.save()
    export(run)
    return run


def _report(run: Run, losses: list[float], tokens_per_s: float) -> None:
    left_s = run.total_s - run.elapsed_s
    print(
        f"step {run.num_steps:6d}  {run.progress:6.1%}  layers {run.model.config.num_hidden_layers:2d}  "
        f"loss {sum(losses) / len(losses):.4f}  {tokens_per_s:7.0f} tokens/s  {left_s / 60:5.1f} min left",
        flush=True,
    )


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--minutes", type=float, required=True, help="minutes of computing")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and model")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    run = train(RECIPES[arguments.model], arguments.minutes, arguments.out)
    if _is_first():
        print(f"done: {run.num_steps} steps in {run.elapsed_s / 60:.1f} min, model in {run.out / 'model'}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
