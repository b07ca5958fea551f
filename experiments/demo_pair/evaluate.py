"""Measures the demo's models: share of unseen problems solved, and time per decoded token.

`python -m experiments.demo_pair.evaluate FOLDER [FOLDER]`; with two folders the ratio of decode times comes last.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import AutoTokenizer, DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from semanticspec.benchmark.statistics import share
from semanticspec.demo.meanings import Meaning, Problem
from semanticspec.demo.parsing import answer_of, read_step
from semanticspec.demo.stories import Split, problems
from semanticspec.engines.transformers.model_runner import cache_argument

MAX_NEW_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Score:
    """Results of a model on a set of problems.

    Attributes:
        num_problems: Problems tried.
        num_solved: Outputs whose boxed answer is right.
        num_ended: Outputs that ended by themselves.
        num_steps: Reasoning steps written.
        num_unreadable: Steps the grammar cannot read.
        num_miscomputed: Readable steps whose result does not follow from their operands.
        num_corrections: Steps that take another one back.
    """

    num_problems: int
    num_solved: int
    num_ended: int
    num_steps: int
    num_unreadable: int
    num_miscomputed: int
    num_corrections: int

    @property
    def accuracy(self) -> float:
        """Share of problems solved."""
        return self.num_solved / self.num_problems


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Loads a model in float32 with its tokenizer, offline."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return cast(LlamaForCausalLM, model.eval()), cast(PreTrainedTokenizerFast, tokenizer)


@torch.inference_mode()
def write_solutions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    solved: list[Problem],
    seed: int,
    batch: int = 125,
) -> list[str]:
    """Samples one output per problem at temperature 0.6 and top-p 0.95; text without the prompt."""
    torch.manual_seed(seed)
    order = sorted(range(len(solved)), key=lambda index: len(solved[index].text))
    outputs = [""] * len(solved)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": solved[index].text}], tokenize=False, add_generation_prompt=True
            )
            for index in chosen
        ]
        inputs = tokenizer(
            [str(prompt) for prompt in prompts], return_tensors="pt", padding=True, padding_side="left"
        )
        written = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=0.6,
            top_p=0.95,
            top_k=0,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        for index, ids in zip(chosen, written[:, inputs["input_ids"].shape[1] :], strict=True):
            outputs[index] = tokenizer.decode(ids)
    return outputs


def score(solved: list[Problem], outputs: list[str], turn_end: str) -> Score:
    """Counts right answers and what went wrong in the steps."""
    steps: list[Meaning | None] = []
    num_solved = num_ended = 0
    for problem, output in zip(solved, outputs, strict=True):
        text, ended, _ = output.partition(turn_end)
        num_ended += bool(ended)
        num_solved += bool(ended) and answer_of(text) == problem.answer
        steps += [read_step(step) for step in text.partition("</think>")[0].split("\n\n")]
    readable = [step for step in steps if step is not None]
    return Score(
        num_problems=len(solved),
        num_solved=num_solved,
        num_ended=num_ended,
        num_steps=len(steps),
        num_unreadable=len(steps) - len(readable),
        num_miscomputed=sum(step.result != step.expected_result() for step in readable),
        num_corrections=sum(step.corrects for step in readable),
    )


@torch.inference_mode()
def decode_ms(
    model: LlamaForCausalLM, prompt_tokens: int = 100, num_tokens: int = 150, repeats: int = 5
) -> float:
    """Returns the median time of decoding one token over a cached context, in milliseconds."""
    times = []
    for repeat in range(repeats + 1):
        cache = DynamicCache(config=model.config)
        kept = {cache_argument(type(model).forward): cache}
        token = model(torch.full((1, prompt_tokens), 9), **kept).logits[:, -1:].argmax(-1)
        started = time.perf_counter()
        for _ in range(num_tokens):
            token = model(token, **kept).logits[:, -1:].argmax(-1)
        if repeat:  # the first one is a warm-up
            times.append((time.perf_counter() - started) / num_tokens * 1e3)
    return sorted(times)[len(times) // 2]


def describe(name: str, result: Score) -> str:
    """Formats a score as one line."""
    num_failed = result.num_problems - result.num_solved
    _, (low, high) = share([1.0] * result.num_solved + [0.0] * num_failed)
    return (
        f"{name}: solved {result.num_solved}/{result.num_problems} = {result.accuracy:.1%} "
        f"(95 % Wilson interval {low:.1%} to {high:.1%}); ended {result.num_ended}; steps {result.num_steps}: "
        f"{result.num_miscomputed} miscomputed, {result.num_unreadable} unreadable, "
        f"{result.num_corrections} corrections"
    )


def main() -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="target, then draft")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="failed outputs to print")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tried = problems(cast(Split, arguments.split), arguments.count, arguments.seed)
    times = []
    for folder in arguments.folders:
        model, tokenizer = load(folder)
        outputs = write_solutions(model, tokenizer, tried, arguments.seed)
        print(describe(folder.name, score(tried, outputs, str(tokenizer.eos_token))), flush=True)
        wrong = [(p, out) for p, out in zip(tried, outputs, strict=True) if answer_of(out) != p.answer]
        for problem, output in wrong[: arguments.show]:
            print(f"--- {problem.text} ({problem.answer})\n{output.partition(str(tokenizer.eos_token))[0]}")
        times.append(decode_ms(model))
        print(f"{folder.name}: {times[-1]:.2f} ms per decoded token")
    if len(times) == 2:
        print(f"decode time ratio {times[0] / times[1]:.2f}")


if __name__ == "__main__":
    main()
