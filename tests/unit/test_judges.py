"""Judges: what is the same, asking models, and labelling that survives a kill."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from semanticspec.errors import ConfigError, EngineError, ModelError, ProbeError
from semanticspec.probes.commands import probe_app, run_label
from semanticspec.probes.journal import Journal
from semanticspec.probes.judges import JUDGES, Clustering, JudgeConfig, Question, cluster, make_judge
from semanticspec.probes.judges.cache import VerdictCache
from semanticspec.probes.judges.exact import ExactJudge
from semanticspec.probes.judges.llm import Endpoint, LanguageModelJudge
from semanticspec.probes.judges.nli import EntailmentJudge, NliModel, entailment_label
from semanticspec.probes.judges.numeric import NumericJudge
from semanticspec.probes.judges.numeric_nli import NumericAndEntailmentJudge
from semanticspec.probes.judges.quality import (
    KnownPair,
    collected_pairs,
    demo_pairs,
    judge_pairs,
    measure,
    read_pairs,
)
from semanticspec.probes.label import label, read_meanings
from semanticspec.probes.meanings import MeaningsStore
from semanticspec.probes.storage import Collection, ContextRecord, SegmentRecord, Shard


def ask(first: str, second: str, problem: str = "", context: str = "") -> Question:
    return Question(problem, context, first, second)


# --- clustering --------------------------------------------------------------------------------------------


def one_by_one(items: Sequence[str], same: Callable[[str, str], bool]) -> list[int]:
    """Greedy clustering as one would tell it: the reference."""
    founders: list[str] = []
    numbers: list[int] = []
    for item in items:
        for number, founder in enumerate(founders):
            if founder == item or same(founder, item):
                numbers.append(number)
                break
        else:
            numbers.append(len(founders))
            founders.append(item)
    return numbers


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.sets(st.tuples(st.sampled_from("abcdefgh"))))
def test_clustering_is_greedy_and_asks_nothing_twice(items: list[str], marked: set[tuple[str]]) -> None:
    """`same` is symmetric and arbitrary: neither transitive nor sensible."""
    odd = {letter for (letter,) in marked}

    def same(one: str, two: str) -> bool:
        return (ord(one) * ord(two) + (one in odd) + (two in odd)) % 3 == 0

    asked: list[frozenset[str]] = []

    def same_as(founder: str, others: Sequence[str]) -> list[bool]:
        asked.extend(frozenset((founder, other)) for other in others)
        return [same(founder, other) for other in others]

    numbers = cluster(items, same_as)
    assert numbers == one_by_one(items, same)
    assert len(asked) == len(set(asked))
    assert all(len(pair) == 2 for pair in asked)
    founders = [items[numbers.index(number)] for number in sorted(set(numbers))]
    for item, number in zip(items, numbers, strict=True):
        assert item == founders[number] or same(founders[number], item)


def test_clustering_overwrites_nothing() -> None:
    """Neighbours are the same here. A member of the first cluster stays there."""
    near = cluster(["1", "2", "3", "4"], lambda one, rest: [abs(int(one) - int(two)) <= 1 for two in rest])
    assert near == [0, 0, 1, 1]


class Always:
    """A pair judge that finds everything the same, and counts its questions."""

    name, identity = "always", ""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def same(self, questions: Sequence[Question]) -> list[bool]:
        self.asked += questions
        return [True] * len(questions)


def test_a_segment_that_ends_the_thinking_is_another() -> None:
    judge = Always()
    keys = Clustering(judge).keys("p", "c", ["a", "b</think>", "c", "d</think>", "a"])
    assert keys == [0, 1, 0, 1, 0]
    assert judge.asked[0] == Question("p", "c", "a", "c")


def test_exact() -> None:
    texts = [
        "Ana starts with 5 pens.\n\n",
        "At the start, Ana has 5 pens.\n\n",
        "Ana starts with 6 pens.",
        "?",
        "Ana starts with 5 pens.</think>",
    ]
    keys = ExactJudge().keys("", "", texts)
    assert keys[0] == keys[1] == keys[4]
    assert len(set(keys)) == 3


# --- entailment --------------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
PAIRS = [(f"{one} {two}", f"{two} {three} {one}") for one in "abcd" for two in "efg" for three in "hij"]
NLI_LABELS = ("contradiction", "neutral", "entailment")


def make_nli(folder: Path, labels: Sequence[str] = NLI_LABELS, max_positions: int = 64) -> Path:
    """A tiny classifier with random weights, always the same ones: for the plumbing, its word means nothing."""
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
    with torch.inference_mode():  # centred, so that no class wins everywhere
        network.classifier.bias -= network(
            **tokenizer(*map(list, zip(*PAIRS, strict=True)), return_tensors="pt", padding=True)
        ).logits.mean(0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nli(tmp_path_factory.mktemp("nli") / "model")


@pytest.fixture(scope="module")
def classes(nli_folder: Path) -> dict[tuple[str, str], int]:
    """Each pair's most probable class, one pair at a time and without our code."""
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
    """The same weights under labels in another order: another class is entailment."""
    folder = make_nli(tmp_path / "model", [NLI_LABELS[i].upper() for i in order])
    place = order.index(2)
    judge = EntailmentJudge(str(folder), device="cpu", batch_size=7)
    expected = [classes[pair] == classes[pair[::-1]] == place for pair in PAIRS]
    assert judge.same([ask(*pair) for pair in PAIRS]) == expected
    assert judge.same([ask(*pair[::-1]) for pair in PAIRS]) == expected


def test_the_tiny_classifier_says_yes_and_no(classes: dict[tuple[str, str], int]) -> None:
    """Else the test above would prove nothing."""
    for place in range(3):
        assert any((classes[pair] == place) != (classes[pair[::-1]] == place) for pair in PAIRS)
    assert any(classes[pair] == classes[pair[::-1]] for pair in PAIRS)


def test_entailment_is_asked_once(tmp_path: Path, nli_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    entails = NliModel.entails

    def counting(self: NliModel, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        asked.extend(pairs)
        return entails(self, pairs)

    monkeypatch.setattr(NliModel, "entails", counting)
    questions = [ask(*pair) for pair in PAIRS] + [ask("a b", "a b"), ask("a b ", "a b\n\n")]
    cache = tmp_path / "verdicts.jsonl"
    first = EntailmentJudge(str(nli_folder), cache=VerdictCache(cache)).same([*questions, *questions])
    assert len(asked) == len(set(asked))
    assert ("a b", "a b") not in asked
    assert first[-2:] == [True, True]
    backward = [pair for pair in asked if pair[::-1] in asked]
    assert len(asked) < 2 * len(PAIRS)  # the second way only where the first one held
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
def test_a_model_that_is_no_nli_judge(tmp_path: Path, labels: Sequence[str]) -> None:
    """Told from the configuration alone, before any weights are there."""
    folder = make_nli(tmp_path / "model", labels)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="is no NLI judge") as caught:
        EntailmentJudge(str(folder))
    assert labels[0] in str(caught.value)


def test_labels_of_two_way_models() -> None:
    assert entailment_label("m", {0: "entailment", 1: "not_entailment"}, {}) == 0
    assert entailment_label("m", {0: "LABEL_0", 1: "LABEL_1"}, {"no": 0, "entailment": 1}) == 1


def test_broken_judges(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in"):
        EntailmentJudge(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot find"):
        EntailmentJudge("nobody/no-such-judge")
    with pytest.raises(ConfigError, match="device"):
        EntailmentJudge(str(make_nli(tmp_path / "a")), device="cuda:99")
    headless = make_nli(tmp_path / "b")
    config = BertConfig.from_pretrained(headless)
    BertModel(config).save_pretrained(headless)
    config.save_pretrained(headless)
    with pytest.raises(ModelError, match="lacks 2 of its weights"):
        EntailmentJudge(str(headless)).same([ask("a", "b")])


def test_long_pairs_are_cut_and_told(tmp_path: Path) -> None:
    judge = EntailmentJudge(str(make_nli(tmp_path / "model", max_positions=16)))
    with pytest.warns(UserWarning, match="reads 16 tokens"):
        judge.same([ask("a " * 30, "b " * 30)])


def test_numbers_decide_before_entailment() -> None:
    entailment = Always()
    judge = NumericAndEntailmentJudge(entailment)
    questions = [ask("3 + 4 = 7", "4 + 3 = 7"), ask("3", "4"), ask("so", "then"), ask("so", "so 5")]
    assert judge.same(questions) == [True, False, True, False]
    assert entailment.asked == [questions[0], questions[2]]
    assert judge.name == "numeric+always"


# --- a language model behind an endpoint -------------------------------------------------------------------


class FakeEndpoint:
    """Speaks chat completions on a local port. `answers` are given in order, then `then` for ever."""

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
                    endpoint.headers.append(dict(self.headers))
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
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())
                except OSError:
                    pass  # the caller gave up

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


@pytest.fixture
def endpoint() -> Iterator[Callable[..., FakeEndpoint]]:
    made: list[FakeEndpoint] = []

    def make(*args: Any, **options: Any) -> FakeEndpoint:
        made.append(FakeEndpoint(*args, **options))
        return made[-1]

    yield make
    for server in made:
        server.close()


def make_llm(
    url: str, cache: VerdictCache | None = None, **options: Any
) -> tuple[LanguageModelJudge, list[float]]:
    waits: list[float] = []
    return LanguageModelJudge(Endpoint(url, "some-model", **options), cache, waits.append), waits


def test_llm_asks_greedily_and_in_an_order_of_its_own(
    endpoint: Callable[..., FakeEndpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = endpoint(
        lambda body: "Yes." if "apple" in body["messages"][1]["content"] else "<think>yes?</think>\nno"
    )
    judge, _ = make_llm(server.url)
    questions = [
        ask("one apple", "an apple", "the problem", "so far"),
        ask("an apple", "one apple\n\n", "the problem", "so far"),
        ask("a pear", "a plum"),
        ask("equal", " equal</think>"),
    ]
    assert judge.same(questions) == [True, True, False, True]
    assert len(server.requests) == 2
    request = next(body for body in server.requests if "apple" in body["messages"][1]["content"])
    assert (request["temperature"], request["model"]) == (0, "some-model")
    told = request["messages"][1]["content"]
    assert told.index("the problem") < told.index("so far") < told.index("an apple") < told.index("one apple")
    assert all(headers["Authorization"] == "Bearer sk-test" for headers in server.headers)


@pytest.mark.parametrize(
    ("trouble", "least_wait_s"),
    [((429, {"Retry-After": "7"}, "slow down"), 7.0), ((503, {}, "loading"), 1.0)],
)
def test_llm_waits_while_the_endpoint_is_busy(
    endpoint: Callable[..., FakeEndpoint], trouble: Any, least_wait_s: float
) -> None:
    server = endpoint("no", [trouble, trouble])
    judge, waits = make_llm(server.url)
    assert judge.same([ask("a", "b")]) == [False]
    assert len(server.requests) == 3
    assert waits[0] == least_wait_s
    assert waits[1] >= 2 * waits[0]


def test_llm_tries_again_after_a_timeout(endpoint: Callable[..., FakeEndpoint]) -> None:
    def slow(_: Any) -> str:
        time.sleep(1.0)
        return "no"

    server = endpoint("yes", [slow])
    judge, waits = make_llm(server.url, timeout_s=0.3)
    assert judge.same([ask("a", "b")]) == [True]
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("answer", "said", "requests"),
    [
        ("Perhaps, who knows", "neither yes nor no", 1),
        ("<think>yes, well", "neither yes nor no", 1),
        ((200, {}, "<html>hello</html>"), "like a chat completion", 1),
        ((200, {}, '{"choices": []}'), "like a chat completion", 1),
        ((401, {}, "wrong key"), "status 401: wrong key", 1),
        ((404, {}, "no such model"), "status 404", 1),
        ((500, {}, ""), "no answer in 3 attempts", 3),
    ],
)
def test_llm_endpoint_that_does_not_do(
    endpoint: Callable[..., FakeEndpoint], answer: Any, said: str, requests: int
) -> None:
    server = endpoint(answer)
    judge, _ = make_llm(server.url, attempts=3)
    with pytest.raises(EngineError, match=said) as caught:
        judge.same([ask("a", "b")])
    assert len(server.requests) == requests
    assert "\n" not in str(caught.value)


def test_llm_without_an_endpoint() -> None:
    server = FakeEndpoint()
    server.close()
    judge, waits = make_llm(server.url)
    with pytest.raises(EngineError, match="no endpoint answers at http://127"):
        judge.same([ask("a", "b")])
    assert not waits
    for url in ("localhost:8000", "", "http://"):
        with pytest.raises(ConfigError, match="--judge-url"):
            Endpoint(url, "m")


def test_llm_answers_before_a_failure_are_kept(endpoint: Callable[..., FakeEndpoint], tmp_path: Path) -> None:
    server = endpoint(lambda body: "maybe" if "bad" in body["messages"][1]["content"] else "yes")
    cache = tmp_path / "verdicts.jsonl"
    questions = [ask("first", f"other {i}") for i in range(6)]
    judge, _ = make_llm(server.url, VerdictCache(cache), concurrency=1)
    with pytest.raises(EngineError, match="neither"):
        judge.same([*questions, ask("first", "bad"), *(ask("first", f"later {i}") for i in range(20))])
    assert len(server.requests) == 7
    again, _ = make_llm(server.url, VerdictCache(cache))
    assert again.same(questions) == [True] * 6
    assert len(server.requests) == 7


def test_llm_asks_a_few_at_once(endpoint: Callable[..., FakeEndpoint]) -> None:
    server = endpoint(delay_s=0.1)
    judge, _ = make_llm(server.url, concurrency=3)
    assert all(judge.same([ask("a", f"b {i}") for i in range(9)]))
    assert 1 < server.most_at_once <= 3


# --- what is kept on disk ----------------------------------------------------------------------------------


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([{"a": 1}, {"b": "x" * 9000}])
    with journal.path.open("ab") as file:
        file.write(b'{"c": "' + b"y" * 9000)
    assert [list(record) for record in journal.read()] == [["a"], ["b"]]
    journal.append([{"d": 4}])
    assert [list(record) for record in journal.read()] == [["a"], ["b"], ["d"]]
    journal.path.write_bytes(b"{torn from the start")
    journal.append([{"e": 5}])
    assert journal.read() == [{"e": 5}]
    for broken in (b"{\n", b"5\n"):
        journal.path.write_bytes(broken)
        with pytest.raises(ProbeError, match="broken"):
            journal.read()


def test_a_full_disk_is_told_and_earlier_work_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([{"a": 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ProbeError, match=r"cannot write .*File too large; earlier work is kept"):
            journal.append([{"b": "x" * 500}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.read() == [{"a": 1}]
    journal.append([{"c": 3}])
    assert journal.read() == [{"a": 1}, {"c": 3}]


def make_collection(folder: Path, num_problems: int = 6, seed: int = 0) -> Collection:
    collection = Collection(folder)
    collection.open({"seed": seed})
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


def test_labels_are_kept_as_parquet(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    with pytest.raises(ProbeError, match="no labels by the judge 'numeric'"):
        read_meanings(collection, "numeric")
    meanings = label(collection, NumericJudge())
    assert read_meanings(collection, "numeric") == meanings
    assert meanings["problem 5"] == [0, 0, 1, 0, 0, 1] * 2
    assert [path.name for path in collection.folder.glob("meanings*")] == ["meanings-numeric.parquet"]


class Stopping(NumericJudge):
    """Stops the work at the `stop_at`-th question, and counts."""

    def __init__(self, stop_at: int | None = None, identity: str = "") -> None:
        self.identity = identity
        self.asked, self.stop_at = 0, stop_at

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> Any:
        self.asked += 1
        if self.asked == self.stop_at:
            raise KeyboardInterrupt
        return super().keys(problem, context, segments)


def test_labels_are_stored_as_they_are_made(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        label(collection, Stopping(stop_at=8))  # two contexts a problem: three problems are done
    assert len(read_meanings(collection, "numeric")) == 3
    judge = Stopping()
    meanings = label(collection, judge)
    assert judge.asked == 6
    assert meanings == label(make_collection(tmp_path / "whole"), NumericJudge())
    assert meanings == label(collection, Stopping(stop_at=1))
    make_collection(tmp_path / "data", num_problems=8)  # two more problems
    more = Stopping()
    assert len(label(collection, more)) == 8
    assert more.asked == 4


def test_a_kill_between_the_two_files_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(tmp_path / "data")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        label(collection, NumericJudge())
    monkeypatch.undo()
    judge = Stopping(stop_at=1)
    assert label(collection, judge) == read_meanings(collection, "numeric")
    assert judge.asked == 0


def test_labels_of_something_else_are_refused(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    label(collection, Stopping(identity="model one"))
    file = collection.folder / "meanings-numeric.parquet"
    with pytest.raises(ProbeError, match="made with 'model one', the judge is now 'model two'"):
        label(collection, Stopping(identity="model two"))
    other = make_collection(tmp_path / "other", seed=1)
    (other.folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ProbeError, match="about another collection"):
        read_meanings(other, "numeric")
    (collection.folder / "meanings-exact.parquet").write_bytes(file.read_bytes())
    with pytest.raises(ProbeError, match="made by the judge numeric"):
        read_meanings(collection, "exact")
    file.write_bytes(b"no Parquet")
    with pytest.raises(ProbeError, match="is broken"):
        read_meanings(collection, "numeric")


def test_changed_segments_are_judged_again(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    label(collection, NumericJudge())
    shard = next(iter(collection))
    changed = tuple(replace(segment, text=segment.text + " pens") for segment in shard.segments)
    collection.write(replace(shard, segments=changed))
    judge = Stopping()
    label(collection, judge)
    assert judge.asked == 2
    assert MeaningsStore(collection, "numeric").has(
        next(s for s in collection if s.problem_id == shard.problem_id)
    )


SLOW_LABELLING = """
import sys, time
from semanticspec.probes.judges.numeric import NumericJudge
from semanticspec.probes.label import label
from semanticspec.probes.storage import Collection

class Slow(NumericJudge):
    def keys(self, *args):
        time.sleep(0.15)
        return super().keys(*args)

label(Collection(sys.argv[1]), Slow())
"""


def kill_when(command: list[str], path: Path, num_lines: int) -> None:
    """Starts a process and kills it when a file has so many lines."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < num_lines:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_labelling_goes_on_after_sigkill(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data", num_problems=12)
    journal = collection.folder / "meanings-numeric.journal.jsonl"
    kill_when([sys.executable, "-c", SLOW_LABELLING, str(collection.folder)], journal, 4)
    done = len(read_meanings(collection, "numeric"))
    assert 3 <= done < 12
    judge = Stopping()
    meanings = label(collection, judge)
    assert judge.asked == 2 * (12 - done)
    assert meanings == label(make_collection(tmp_path / "whole", num_problems=12), NumericJudge())
    assert not journal.exists()


@pytest.mark.slow
def test_an_endpoint_is_not_asked_again_after_sigkill(
    tmp_path: Path, endpoint: Callable[..., FakeEndpoint]
) -> None:
    server = endpoint("no", delay_s=0.1)
    collection = make_collection(tmp_path / "data", num_problems=6)
    options = ["--judge", "llm", "--judge-model", "m", "--judge-url", server.url, "--concurrency", "2"]
    code = "from semanticspec.cli import main; main()"
    command = [sys.executable, "-c", code, "probe", "label", "--data", str(collection.folder), *options]
    verdicts = collection.folder / "verdicts-llm.jsonl"
    kill_when(command, verdicts, 5)
    time.sleep(0.3)  # what was under way when it was killed has arrived
    kept, asked = verdicts.read_bytes().count(b"\n"), len(server.requests)
    assert 0 <= asked - kept <= 2
    subprocess.run(command, check=True, capture_output=True)
    assert (
        len(server.requests) == 6 * 2 * 3 + asked - kept
    )  # three pairs a context; only those under way again
    assert set(read_meanings(collection, "llm")["problem 0"]) == {0, 1, 2}
    subprocess.run(command, check=True, capture_output=True)
    assert len(server.requests) == 6 * 2 * 3 + asked - kept


# --- quality -----------------------------------------------------------------------------------------------


def test_quality_by_hand() -> None:
    truth = [True, True, True, False, False]
    pairs = [KnownPair(ask("a", "b"), same, "same" if same else "not") for same in truth]
    quality = measure(pairs, [True, True, False, True, False])
    assert quality.precision.value == quality.recall.value == quality.f1.value == pytest.approx(2 / 3)
    assert quality.accuracy.value == pytest.approx(0.6)
    assert quality.by_kind == {"not": (0.5, 2), "same": (pytest.approx(2 / 3), 3)}
    assert 0 <= quality.accuracy.low < 0.6 < quality.accuracy.high <= 1
    assert measure(pairs, [False] * 5).precision.value == 0
    with pytest.raises(ConfigError, match="and pairs that do not"):
        measure(pairs[:3], [True] * 3)


def test_demo_pairs_are_what_they_say() -> None:
    pairs = demo_pairs(80)
    assert pairs == demo_pairs(80)
    assert pairs != demo_pairs(80, seed=1)
    assert all(pair.question.first != pair.question.second for pair in pairs)
    assert all(pair.same for pair in pairs if pair.kind == "reworded")
    assert not any(pair.same for pair in pairs if pair.kind.startswith("wrong"))
    assert {pair.kind for pair in pairs} == {
        "reworded",
        "wrong number",
        "wrong operation",
        "wrong person",
        "another step",
    }
    quality = measure(pairs, judge_pairs(ExactJudge(), pairs))
    assert quality.accuracy.value == 1.0
    assert quality.num_same >= 40


def test_pairs_that_models_wrote(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    collection.open({})
    texts = ("Ana starts with 5 pens.", "At the start, Ana has 5 pens.", "Ben starts with 5 pens.", "no step")
    segments = tuple(SegmentRecord("0", "target", text, (1,), 2, "stop", (-1.0,)) for text in texts)
    states = torch.zeros(len(segments), 2)
    context = ContextRecord("0", "target", "so far")
    collection.write(Shard("1", "prompt", (context,), segments, states, states.clone()))
    pairs = collected_pairs(tmp_path, 3)
    assert sorted(pair.same for pair in pairs) == [False, False, True]
    quality = measure(pairs, judge_pairs(NumericJudge(), pairs))
    assert quality.precision.value == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="3 pairs of readable segments"):
        collected_pairs(tmp_path, 4)
    with pytest.raises(ProbeError, match="no collection"):
        collected_pairs(tmp_path / "none", 4)


def test_pair_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"a": "1", "b": "one", "label": "entailment", "score": 4.9},
        {"a": "1", "b": "some", "label": "entailment", "score": 4.0},
        {"a": "1", "b": "2", "label": "neutral", "score": 3.0},
        {"a": "1", "b": "3", "same": False},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(path, 2, least_score=4.5)
    assert [pair.same for pair in pairs] == [True, False]
    assert pairs[0].question == ask("1", "one")
    assert {pair.kind for pair in read_pairs(path, 4)} == {"entailment", "neutral", "different"}
    with pytest.raises(ConfigError, match="4 pairs need 2 of each"):
        read_pairs(path, 4, least_score=4.5)
    path.write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_pairs(path, 2)
    with pytest.raises(ConfigError, match="no pairs can be read"):
        read_pairs(tmp_path / "none", 2)


# --- the command line --------------------------------------------------------------------------------------


def test_judges_by_name(nli_folder: Path, tmp_path: Path) -> None:
    for name in JUDGES:
        model = {"llm": "m"}.get(name, str(nli_folder) if "nli" in name else None)
        judge = make_judge(
            JudgeConfig(name, model, "http://localhost:1/v1" if name == "llm" else None), tmp_path
        )
        assert judge.name == name
        assert bool(judge.identity) == (name not in ("exact", "numeric"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "numbers"}, "unknown judge 'numbers'; expected one of exact, numeric"),
        ({"name": "llm", "model": "m"}, "needs --judge-url"),
        ({"name": "numeric", "model": "m"}, "has no model"),
        ({"name": "nli", "url": "http://x"}, "--judge-url is for the judge llm"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JudgeConfig(**options)


def test_label_command(tmp_path: Path, nli_folder: Path) -> None:
    collection, runner = make_collection(tmp_path / "data", num_problems=2), CliRunner()
    data = ["--data", str(collection.folder)]
    for options in (
        ["numeric"],
        ["nli", "--judge-model", str(nli_folder)],
        ["numeric+nli", "--judge-model", str(nli_folder)],
    ):
        result = runner.invoke(probe_app, ["label", *data, "--judge", *options])
        assert result.exit_code == 0, (result.output, result.exception)
        assert len(read_meanings(collection, options[0])) == 2
    no_judge = make_nli(tmp_path / "model", ("negative", "positive"))
    result = runner.invoke(probe_app, ["label", *data, "--judge", "nli", "--judge-model", str(no_judge)])
    assert isinstance(result.exception, ConfigError)
    run_label(collection, "exact")
    assert len(read_meanings(collection, "exact")) == 2


def test_quality_command(tmp_path: Path) -> None:
    out = tmp_path / "quality.json"
    arguments = ["judge-quality", "--judge", "exact", "--num-pairs", "40", "--out", str(out)]
    result = CliRunner().invoke(probe_app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads(out.read_text())
    assert report["accuracy"] == [1.0, 1.0, 1.0]
    assert (report["judge"], report["num_pairs"], report["pairs"]) == ("exact", 40, "demo")
