"""Request bodies that the API accepts.

Unknown fields are rejected by name, never ignored. OpenAI fields that the server does not implement are accepted only
with a value that has no effect, because many clients send those by default.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from semanticspec.config import CONTROL_RULES, DecodingConfig, RuleName, target_alone, with_options
from semanticspec.errors import ConfigError
from semanticspec.text.chat import PlainText, Prompt

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_PROMPTS = 64

# Values without effect, by field; null is always one of them.
NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
}
NO_EFFECT_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "refusal": (),
    "tool_calls": ([],),
}


def _without_no_effect(data: Any, no_effect: dict[str, tuple[Any, ...]]) -> Any:
    """Removes fields whose value has no effect."""
    if not isinstance(data, dict):
        return data
    return {
        name: value
        for name, value in data.items()
        if name not in no_effect or not (value is None or value in no_effect[name])
    }


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate; send valid Unicode text") from None
    return text


Text = Annotated[str, AfterValidator(_check_encodable)]
StopString = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class Strict(BaseModel):
    """Rejects unknown fields, and NaN and infinity as numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(Strict):
    """What a stream contains besides text."""

    include_usage: bool = False


class Speculation(Strict):
    """Speculation settings of one request; the server's settings apply to fields that are left out.

    Attributes:
        enabled: false decodes with the target alone.
        strictness: of the rule `semantic`; larger values accept fewer drafted segments.
        segments: report every segment with its decision: in `metrics.semantic` of the response, and in a stream as they
            are decided.
    """

    enabled: bool = True
    rule: RuleName | None = None
    strictness: float | None = Field(default=None, gt=0)
    segments: bool = False


class TextPart(Strict):
    """A part of a message's content. Only text is supported."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """A chat message. Earlier reasoning may be sent back; it is left out of the prompt, as reasoning models expect."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_no_effect(cls, data: Any) -> Any:
        return _without_no_effect(data, NO_EFFECT_IN_MESSAGE)

    def for_template(self) -> dict[str, str]:
        """Returns the message as chat templates expect it. `developer` is OpenAI's newer name of `system`."""
        text = self.content or ""
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class GenerationRequest(Strict):
    """Fields of both endpoints. `user` has no effect."""

    id_prefix: ClassVar[str]

    model: str | None = None
    n: int = Field(default=1, ge=1)
    stop: Annotated[
        list[StopString] | None, BeforeValidator(_as_list), Field(default=None, max_length=MAX_STOPS)
    ]
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    user: str | None = None
    speculation: Speculation = Field(default_factory=Speculation)

    @model_validator(mode="before")
    @classmethod
    def _drop_no_effect(cls, data: Any) -> Any:
        """Removes fields without effect. Null means that a field is left out."""
        data = _without_no_effect(data, NO_EFFECT)
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or k not in cls.model_fields}

    @model_validator(mode="after")
    def _check_stream_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options requires stream: true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def max_new_tokens(self) -> int | None:
        """Maximum length of an output; None for the server's default."""
        return self.max_tokens

    @property
    def prompts(self) -> list[Prompt]:
        raise NotImplementedError

    def decoding_config(self, defaults: DecodingConfig) -> DecodingConfig:
        """Returns the server's configuration with this request's changes.

        Without a seed, a random one is drawn. Adaptive speculation depends on measured times, so a request with a seed
        goes without, and so does one with a control rule.

        Raises:
            ConfigError: the settings contradict each other.
        """
        config = with_options(
            replace(defaults, stop=tuple(self.stop or ())),
            rule=self.speculation.rule,
            strictness=self.speculation.strictness,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
        )
        if self.seed is not None or config.rule.name in CONTROL_RULES:
            config = replace(config, adaptive=False)
        if self.speculation.strictness is not None and config.rule.name != "semantic":
            raise ConfigError(
                f"strictness applies to the rule 'semantic' only, but the rule is {config.rule.name!r}; leave it out"
            )
        return config if self.speculation.enabled else target_alone(config)


class ChatRequest(GenerationRequest):
    """A request to `/v1/chat/completions`."""

    id_prefix: ClassVar[str] = "chatcmpl"

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_limits_agree(self) -> ChatRequest:
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError(
                "max_tokens (deprecated) and max_completion_tokens differ; send only one of them"
            )
        return self

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompts(self) -> list[Prompt]:
        return [[message.for_template() for message in self.messages]]


class CompletionRequest(GenerationRequest):
    """A request to `/v1/completions`: continues the text without a chat template.

    Attributes:
        max_tokens: 16 by default, as in OpenAI's API.
    """

    id_prefix: ClassVar[str] = "cmpl"

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: int | None = Field(default=16, ge=1)

    @property
    def prompts(self) -> list[Prompt]:
        return [PlainText(text) for text in ([self.prompt] if isinstance(self.prompt, str) else self.prompt)]


class ErrorDetail(BaseModel):
    """An error in OpenAI's format, see `errors.ApiError.body`."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of an error response."""

    error: ErrorDetail
