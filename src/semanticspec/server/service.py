"""What stands behind the endpoints: one pair, its queue and the requests at work."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semanticspec.config import DecodingConfig, target_alone, with_options
from semanticspec.decoding.loop import Request
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError
from semanticspec.server.api.errors import ApiError
from semanticspec.server.api.replies import Endpoint, Reply
from semanticspec.server.api.schemas import ChatRequest, CompletionRequest, GenerationRequest
from semanticspec.server.metrics import Metrics
from semanticspec.server.scheduling.admission import Admission, Place
from semanticspec.server.scheduling.jobs import Job, Plan
from semanticspec.server.settings import ServerSettings
from semanticspec.text.chat import PlainText, Prompt

_ID_PREFIX: dict[Endpoint, str] = {"chat": "chatcmpl", "text": "cmpl"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that is at work, and its answer-to-be."""

    job: Job
    reply: Reply


class Service:
    """Takes requests for one pair.

    Attributes:
        draining: the server is shutting down and takes nothing new.
    """

    def __init__(self, pair: Pair, settings: ServerSettings) -> None:
        """Raises ConfigError or ProbeError if the pair cannot do what the settings say."""
        self.pair, self.settings = pair, settings
        config = settings.decoding()
        self.config = pair.with_default_optimizations(config) if settings.default_optimizations else config
        pair.check(self.config)
        self.model_name = settings.served_model_name or settings.target or pair.name
        self.max_model_len = self._max_model_len()
        self.created = int(time.time())
        self.draining = False
        self.admission = Admission(settings.max_concurrent_requests, settings.max_queued_requests)
        self.metrics = Metrics(self.model_name, self.admission)
        self._jobs: set[Job] = set()

    def _max_model_len(self) -> int:
        context, asked = self.pair.target.engine.info.max_context_tokens, self.settings.max_model_len
        if asked is not None and asked > context:
            raise ConfigError(
                f"max_model_len is {asked} and the target's context holds {context} tokens; ask for fewer"
            )
        return asked or context

    async def accept(self, body: ChatRequest | CompletionRequest) -> Accepted:
        """Checks a request and sets it to work.

        Raises:
            ApiError: 404 another model is asked for, 429 the queue is full, 503 the server shuts down.
            PromptError, ConfigError, ProbeError: the request cannot be answered.
        """
        self._check_name(body.model)
        if self.draining:
            raise shutting_down()
        prompts = prompts_of(body)
        places = self._reserve(body.n * len(prompts))
        try:
            plans, prompt_tokens = await asyncio.to_thread(self._plans, body, prompts)
        except BaseException:
            for place in places:
                place.leave()
            raise
        endpoint: Endpoint = "chat" if isinstance(body, ChatRequest) else "text"
        request_id = f"{_ID_PREFIX[endpoint]}-{secrets.token_hex(16)}"
        job = Job(self.pair, plans, places, self.metrics, request_id, self.settings.request_timeout_s)
        self._jobs.add(job)
        job.task.add_done_callback(lambda _: self._jobs.discard(job))
        reply = Reply(
            endpoint,
            request_id,
            self.model_name,
            num_outputs=len(plans),
            prompt_tokens=prompt_tokens,
            include_usage=body.include_usage,
            tells_segments=body.speculation.segments,
        )
        return Accepted(job, reply)

    def _reserve(self, count: int) -> list[Place]:
        try:
            return self.admission.reserve(count)
        except ApiError as error:
            if error.status == 429:
                self.metrics.refused()
            raise

    def stop_all(self, why: ApiError) -> None:
        """Ends all work; clients that still read are told why."""
        for job in list(self._jobs):
            job.stop(why)

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise ApiError(
                404,
                f"there is no model {name!r} here; this server has {self.model_name!r}",
                param="model",
                code="model_not_found",
            )

    def _plans(
        self, body: ChatRequest | CompletionRequest, prompts: Sequence[Prompt]
    ) -> tuple[list[Plan], int]:
        """One plan for every output, and how many tokens the prompts have. Runs in a thread: it tokenizes."""
        config = decoding_of(self.config, body)
        self.pair.check(config)
        plans: list[Plan] = []
        prompt_tokens = 0
        for prompt in prompts:
            length = len(Request(self.pair, config, prompt).transcript.prompt_ids)
            prompt_tokens += length
            limited = self._limited(config, length)
            for choice in range(body.n):
                seed = config.seed if choice == 0 else derived_seed(config.seed, "choice", choice)
                plans.append(
                    Plan(
                        prompt,
                        replace(limited, seed=seed),
                        stops=tuple(body.stop or ()),
                        parts_thinking=isinstance(body, ChatRequest),
                        tells_segments=body.speculation.segments,
                    )
                )
        return plans, prompt_tokens

    def _limited(self, config: DecodingConfig, prompt_tokens: int) -> DecodingConfig:
        """Not longer than `max_model_len` leaves room for."""
        room = self.max_model_len - prompt_tokens
        if room < 1:
            raise ApiError(
                400,
                f"the prompt has {prompt_tokens} tokens and this server holds {self.max_model_len}, output "
                "included; shorten the prompt",
                param="prompt",
                code="context_length_exceeded",
            )
        return replace(config, max_new_tokens=min(config.max_new_tokens, room))


def decoding_of(config: DecodingConfig, body: GenerationRequest) -> DecodingConfig:
    """The server's settings with what a request changes. Without a seed every request gets its own.

    Raises:
        ConfigError: the request's settings contradict each other.
    """
    asked = body.speculation
    config = with_options(
        config,
        rule=asked.rule,
        strictness=asked.strictness,
        max_new_tokens=body.new_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=secrets.randbelow(2**32) if body.seed is None else body.seed,
    )
    if asked.strictness is not None and config.rule.name != "semantic":
        raise ConfigError(f"strictness belongs to the rule 'semantic', and the rule is {config.rule.name!r}")
    return config if asked.enabled else target_alone(config)


def shutting_down() -> ApiError:
    """What clients are told while the server ends."""
    return ApiError(503, "the server is shutting down; ask again or elsewhere", code="shutting_down")


def prompts_of(body: ChatRequest | CompletionRequest) -> list[Prompt]:
    """The prompts of a request. `developer` is OpenAI's newer name of `system`, which chat templates know."""
    if isinstance(body, CompletionRequest):
        return [PlainText(text) for text in ([body.prompt] if isinstance(body.prompt, str) else body.prompt)]
    messages = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text}
        for message in body.messages
    ]
    return [messages]
