"""Accepts requests for one pair: checks them, reserves their place in the queue and starts their jobs."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace

from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError
from semanticspec.server.api.errors import ApiError, shutdown_error
from semanticspec.server.api.schemas import ChatRequest, CompletionRequest
from semanticspec.server.metrics import Metrics
from semanticspec.server.scheduling.admission_queue import AdmissionQueue, Slot
from semanticspec.server.scheduling.jobs import Job
from semanticspec.server.scheduling.outputs import OutputSpec
from semanticspec.server.settings import ServerSettings
from semanticspec.text.chat import Prompt


class Service:
    """Serves one pair.

    Attributes:
        config: decoding configuration of requests that do not change it.
        max_model_len: maximum of prompt and output together, in target tokens.
        created: Unix time of the start, in seconds.
        draining: the server is shutting down and accepts no requests.
    """

    def __init__(self, pair: Pair, settings: ServerSettings) -> None:
        """Raises ConfigError, ProbeError or EngineError if the pair cannot run with these settings."""
        self.pair, self.settings = pair, settings
        self.config = settings.decoding()
        pair.check(self.config)
        context = pair.target.engine.info.max_context_tokens
        self.max_model_len = settings.max_model_len or context
        if self.max_model_len > context:
            raise ConfigError(
                f"max_model_len is {self.max_model_len}; expected at most {context}, the target's context length"
            )
        self.model_name = settings.served_model_name or settings.target or pair.name
        self.created = int(time.time())
        self.draining = False
        self.queue = AdmissionQueue(settings.max_concurrent_requests, settings.max_queued_requests)
        self.metrics = Metrics(self.model_name, self.queue)
        self._jobs: set[Job] = set()

    async def submit(self, body: ChatRequest | CompletionRequest) -> Job:
        """Checks a request and starts its job.

        Raises:
            ApiError: unknown model (404), prompt too long (400), queue full (429), or shutting down (503).
            PromptError, ConfigError, ProbeError, EngineError: the pair cannot run the request.
        """
        if body.model not in (None, self.model_name):
            raise ApiError(
                404,
                f"the model {body.model!r} does not exist; this server has {self.model_name!r}",
                param="model",
                code="model_not_found",
            )
        if self.draining:
            raise shutdown_error()
        slots = self._reserve(body.n * len(body.prompts))
        try:
            specs = await asyncio.to_thread(self._output_specs, body)
        except BaseException:
            for slot in slots:
                slot.release()
            raise
        request_id = f"{body.id_prefix}-{secrets.token_hex(16)}"
        job = Job(self.pair, specs, slots, self.metrics, request_id, self.settings.request_timeout_s)
        self._jobs.add(job)
        job.task.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    def stop_all(self, reason: ApiError) -> None:
        """Stops all jobs; their clients get `reason`."""
        for job in list(self._jobs):
            job.stop(reason)

    def _reserve(self, count: int) -> list[Slot]:
        try:
            return self.queue.reserve(count)
        except ApiError as error:
            if error.status_code == 429:
                self.metrics.refused.inc()
            raise

    def _output_specs(self, body: ChatRequest | CompletionRequest) -> list[OutputSpec]:
        """Returns the outputs to decode. Blocks: it tokenizes the prompts."""
        self.pair.check(body.decoding_config(self.config))
        specs: list[OutputSpec] = []
        for prompt in body.prompts:
            config = body.decoding_config(self.config)  # without a seed, each prompt gets its own
            prompt_ids = self._tokenize(prompt)
            room = self.max_model_len - len(prompt_ids)
            for choice in range(body.n):
                seed = config.seed if choice == 0 else derived_seed(config.seed, "choice", choice)
                specs.append(
                    OutputSpec(
                        prompt,
                        replace(config, max_new_tokens=min(config.max_new_tokens, room), seed=seed),
                        prompt_tokens=len(prompt_ids),
                        think_tags=self.pair.target.vocabulary.think_tags,
                        starts_in_thinking=self.pair.target.vocabulary.opens_thinking(prompt_ids),
                        splits_thinking=isinstance(body, ChatRequest),
                        reports_segments=body.speculation.segments,
                    )
                )
        return specs

    def _tokenize(self, prompt: Prompt) -> list[int]:
        """Returns the prompt's ids in the target's vocabulary, after checking that an output fits."""
        prompt_ids = self.pair.target.vocabulary.render_prompt(prompt)
        if len(prompt_ids) >= self.max_model_len:
            raise ApiError(
                400,
                f"the prompt has {len(prompt_ids)} tokens, but the server's context is limited to "
                f"{self.max_model_len}, output included; shorten the prompt",
                param="prompt",
                code="context_length_exceeded",
            )
        return prompt_ids
