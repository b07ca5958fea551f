"""Prometheus metrics: vLLM's names with our prefix, plus metrics of segment-level speculation.

They count outputs: a request with `n=4` counts as four.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from semanticspec.records import Segment, Stats
from semanticspec.server.scheduling.admission_queue import AdmissionQueue

PREFIX = "semanticspec:"
PHASES = ("draft", "verify", "rewrite", "probe")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """Metrics of one server, in their own registry. Every metric has the label `model_name`.

    Attributes:
        refused: requests rejected because the queue was full.
        queue_s, first_text_s: seconds in the queue, and from a request's arrival to its first text.
    """

    def __init__(self, model_name: str, queue: AdmissionQueue) -> None:
        self._model = model_name
        self._registry = CollectorRegistry()
        for name, help_text, value in (
            ("num_requests_running", "Outputs being decoded.", lambda: queue.running),
            ("num_requests_waiting", "Outputs waiting in the queue.", lambda: queue.waiting),
        ):
            gauge = Gauge(PREFIX + name, help_text, ["model_name"], registry=self._registry)
            gauge.labels(model_name).set_function(value)
        counter, seconds = self._counter, self._histogram
        self._ended = counter("request_success", "Outputs that ended, by reason.", "finished_reason")
        self.refused = counter("requests_refused", "Requests rejected because the queue was full.")
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens.")
        self._generation_tokens = counter("generation_tokens", "Output tokens.")
        self._drafts = counter("spec_decode_num_drafts", "Drafted segments that the target judged.")
        self._draft_tokens = counter("spec_decode_num_draft_tokens", "Drafted tokens.")
        self._accepted_tokens = counter("spec_decode_num_accepted_tokens", "Drafted tokens that were kept.")
        self._segments = counter("segments", "Segments.", "author", "outcome", "rule")
        self._phase_s = counter("phase_seconds", "Decoding time of outputs by phase.", "phase")
        self.first_text_s = seconds(
            "time_to_first_token_seconds", "Time from a request's arrival to its first text."
        )
        self._latency_s = seconds(
            "e2e_request_latency_seconds", "Time from a request's arrival to an output's end."
        )
        self.queue_s = seconds("request_queue_time_seconds", "Time in the queue.")
        self._per_token_s = seconds("request_time_per_output_token_seconds", "Decoding time per token.")
        self._probability = self._histogram(
            "semantic_probability", "Semantic probabilities from the probes.", "of", buckets=_PROBABILITIES
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        metric = Counter(PREFIX + name, help_text, ["model_name", *labels], registry=self._registry)
        return metric if labels else metric.labels(self._model)

    def _histogram(
        self, name: str, help_text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        names = ["model_name", *labels]
        metric = Histogram(PREFIX + name, help_text, names, registry=self._registry, buckets=buckets)
        return metric if labels else metric.labels(self._model)

    def record_end(self, reason: str, elapsed_s: float) -> None:
        """Counts an output that finished ("stop", "length"), was cancelled ("abort") or failed ("error")."""
        self._ended.labels(self._model, reason).inc()
        self._latency_s.observe(elapsed_s)

    def record_output(self, stats: Stats, segments: Sequence[Segment]) -> None:
        """Counts the tokens, times and segments of a finished output."""
        self._prompt_tokens.inc(stats.prompt_tokens)
        self._generation_tokens.inc(stats.num_tokens)
        self._drafts.inc(stats.segments_accepted + stats.segments_rejected)
        self._draft_tokens.inc(stats.drafted_tokens)
        self._accepted_tokens.inc(stats.draft_tokens)
        if stats.num_tokens:
            self._per_token_s.observe(stats.wall_s / stats.num_tokens)
        for phase in PHASES:
            self._phase_s.labels(self._model, phase).inc(getattr(stats, f"{phase}_s"))
        for segment in segments:
            outcome = {True: "accepted", False: "rejected", None: "unjudged"}[segment.accepted]
            self._segments.labels(self._model, segment.author, outcome, segment.reason or "none").inc()
            for of, probability in (("target", segment.p_target), ("draft", segment.p_draft)):
                if probability is not None:
                    self._probability.labels(self._model, of).observe(probability)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
