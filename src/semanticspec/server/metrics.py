"""What Prometheus is told: vLLM's names under our prefix, and what only speculation by segments has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from semanticspec.records import Segment, Stats
from semanticspec.server.scheduling.admission import Admission

PREFIX = "semanticspec:"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))
PHASES = ("draft", "verify", "rewrite", "probe")


@dataclass(slots=True)
class RequestClock:
    """When a request came, and whether any text has gone out."""

    came: float = field(default_factory=time.perf_counter)
    text_came: bool = False


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, model_name: str, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self._model_name = model_name
        for name, help_text, read in (
            ("num_requests_running", "Outputs that are being written.", lambda: admission.running),
            ("num_requests_waiting", "Outputs that wait for their turn.", lambda: admission.waiting),
        ):
            gauge = Gauge(PREFIX + name, help_text, ["model_name"], registry=self.registry)
            gauge.labels(model_name).set_function(read)
        self._make_counters()
        self._make_histograms()

    def _make_counters(self) -> None:
        self._ended = self._counter("request_success", "Outputs that ended, by reason.", "finished_reason")
        self._refused = self._counter("requests_refused", "Requests sent away because the queue was full.")
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self._new_tokens = self._counter("generation_tokens", "Tokens of outputs.")
        self._drafts = self._counter("spec_decode_num_drafts", "Segments that the target judged.")
        self._draft_tokens = self._counter("spec_decode_num_draft_tokens", "Tokens that the draft proposed.")
        self._kept_tokens = self._counter("spec_decode_num_accepted_tokens", "Those of them that were kept.")
        self._segments = self._counter(
            "segments", "Segments by author, outcome and the rule that decided.", "author", "outcome", "rule"
        )
        self._phase_s = self._counter("phase_seconds", "Seconds of outputs by phase.", "phase")

    def _make_histograms(self) -> None:
        self._first_text_s = self._histogram("time_to_first_token_seconds", "From arrival to the first text.")
        self._whole_s = self._histogram("e2e_request_latency_seconds", "From arrival to an output's end.")
        self._queue_s = self._histogram("request_queue_time_seconds", "Waiting for a turn.")
        self._token_s = self._histogram(
            "request_time_per_output_token_seconds", "Seconds of decoding for each token of an output."
        )
        self._probability = self._histogram(
            "semantic_probability", "What the probes said.", "of", buckets=_PROBABILITIES
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_text, ["model_name", *labels], registry=self.registry)

    def _histogram(
        self, name: str, help_text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        return Histogram(
            PREFIX + name, help_text, ["model_name", *labels], registry=self.registry, buckets=buckets
        )

    def new_clock(self) -> RequestClock:
        return RequestClock()

    def refused(self) -> None:
        """A request was sent away."""
        self._refused.labels(self._model_name).inc()

    def queued(self, seconds: float) -> None:
        """An output's turn has come."""
        self._queue_s.labels(self._model_name).observe(seconds)

    def first_text(self, clock: RequestClock) -> None:
        """Text goes out; only a request's first counts."""
        if not clock.text_came:
            clock.text_came = True
            self._first_text_s.labels(self._model_name).observe(time.perf_counter() - clock.came)

    def ended(self, clock: RequestClock, reason: str) -> None:
        """An output ended, however it did."""
        self._ended.labels(self._model_name, reason).inc()
        self._whole_s.labels(self._model_name).observe(time.perf_counter() - clock.came)

    def finished(self, clock: RequestClock, reason: str, stats: Stats, segments: Sequence[Segment]) -> None:
        """An output is complete."""
        name = self._model_name
        self.ended(clock, reason)
        self._prompt_tokens.labels(name).inc(stats.prompt_tokens)
        self._new_tokens.labels(name).inc(stats.num_tokens)
        self._drafts.labels(name).inc(stats.segments_accepted + stats.segments_rejected)
        self._draft_tokens.labels(name).inc(stats.drafted_tokens)
        self._kept_tokens.labels(name).inc(stats.draft_tokens)
        if stats.num_tokens:
            self._token_s.labels(name).observe(stats.wall_s / stats.num_tokens)
        for phase in PHASES:
            self._phase_s.labels(name, phase).inc(getattr(stats, f"{phase}_s"))
        for segment in segments:
            self._count(segment)

    def _count(self, segment: Segment) -> None:
        outcome = {True: "accepted", False: "rejected", None: "unjudged"}[segment.accepted]
        self._segments.labels(self._model_name, segment.author, outcome, segment.reason or "none").inc()
        for of, probability in (("target", segment.p_target), ("draft", segment.p_draft)):
            if probability is not None:
                self._probability.labels(self._model_name, of).observe(probability)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
