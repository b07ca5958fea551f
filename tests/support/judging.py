"""Builders for tests of judges: tiny NLI classifiers, a fake endpoint, a collection written by hand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard
from semanticspec.training.labels.judges import Question
from semanticspec.training.labels.judges.cache import VerdictCache
from semanticspec.training.labels.judges.llm import LanguageModelJudge
from tests.support.collecting import make_manifest


def ask(first: str, second: str, problem: str = "", context: str = "") -> Question:
    return Question(problem, context, first, second)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
PAIRS = [(f"{one} {two}", f"{two} {three} {one}") for one in "abcd" for two in "efg" for three in "hij"]
NLI_LABELS = ("contradiction", "neutral", "entailment")


def make_nli(folder: Path, labels: Sequence[str] = NLI_LABELS, max_positions: int = 64) -> Path:
    """Saves a tiny classifier with random but fixed weights; its verdicts are meaningless."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=max_positions,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        initializer_range=0.3,
    )
    network = BertForSequenceClassification(config).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    with torch.inference_mode():  # centre the logits, so that every class wins somewhere
        network.classifier.bias -= network(
            **tokenizer(*map(list, zip(*PAIRS, strict=True)), return_tensors="pt", padding=True)
        ).logits.mean(0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class FakeEndpoint:
    """Serves chat completions on a local port: first `answers` in order, then always `then`."""

    def __init__(self, then: Any = "yes", answers: Sequence[Any] = (), delay_s: float = 0.0) -> None:
        self.answers, self.then, self.delay_s = list(answers), then, delay_s
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    endpoint.requests.append(body)
                    endpoint.headers.append({name.lower(): text for name, text in self.headers.items()})
                    endpoint.at_once += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
                    answer = endpoint.answers.pop(0) if endpoint.answers else endpoint.then
                time.sleep(endpoint.delay_s)
                answer = answer(body) if callable(answer) else answer
                with lock:
                    endpoint.at_once -= 1
                status, headers, text = answer if isinstance(answer, tuple) else (200, {}, chat(answer))
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())
                except OSError:
                    pass  # the client closed the connection

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def chat(content: str) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def make_llm(url: str, cache: VerdictCache | None = None, **options: Any) -> LanguageModelJudge:
    return LanguageModelJudge(url, "some-model", cache, **options)


def make_collection(folder: Path, num_problems: int = 6, seed: int = 0) -> Collection:
    collection = Collection(folder)
    collection.open(make_manifest(seed))
    for number in range(num_problems):
        segments = tuple(
            SegmentRecord(str(place), author, text, (1,), 2, "stop", (-1.0,), drafted, (1,), (0.5,))
            for place in range(2)
            for author, drafted in (("target", ()), ("draft", (-1.0,)))
            for text in (
                f"{number} + 1 = {number + 1}",
                f"1 and {number} make {number + 1}",
                f"{number} - 1 = 0",
            )
        )
        contexts = tuple(ContextRecord(str(place), "target", f"text {place}") for place in range(2))
        states = torch.zeros(len(segments), 2)
        collection.write(Shard(f"problem {number}", "prompt", contexts, segments, states, states.clone()))
    return collection


class Always:
    """A pair judge that answers yes to every question and records it."""

    name, identity = "always", ""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def same(self, questions: Sequence[Question]) -> list[bool]:
        self.asked += questions
        return [True] * len(questions)
