"""The requests that are understood. A field that is not is refused by name, never ignored.

Only a few fields of OpenAI's that are not supported may be there: with the value at which they do nothing, since many
clients send those unasked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from semanticspec.config import RuleName

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_PROMPTS = 64

# By field, the values at which it does nothing; None always is one.
NEUTRAL: dict[str, tuple[Any, ...]] = {
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
NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "refusal": (),
    "tool_calls": ([],),
}


class Strict(BaseModel):
    """Fields that are not declared are an error; so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _stop_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
StopString = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class StreamOptions(Strict):
    """What a stream carries besides text."""

    include_usage: bool = False


class Speculation(Strict):
    """Ours: how this request is speculated; what is left out is as the server was started.

    Attributes:
        enabled: false is the target alone.
        strictness: of the rule `semantic`; larger keeps fewer drafted segments.
        segments: tell every segment with its verdict, in the answer's `metrics.semantic` and, streamed, as it comes.
    """

    enabled: bool = True
    rule: RuleName | None = None
    strictness: float | None = Field(default=None, gt=0)
    segments: bool = False


class TextPart(Strict):
    """A part of a message's content; only text is understood."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """A chat message. Earlier thinking may be sent back and is left out, as reasoning models expect."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_neutral(cls, data: Any) -> Any:
        return without_neutral(data, NEUTRAL_IN_MESSAGE)

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class GenerationRequest(Strict):
    """What both endpoints understand. `user` names the client's own user and has no effect, at OpenAI's neither."""

    model: str | None = None
    n: int = Field(default=1, ge=1)
    stop: Annotated[
        list[StopString] | None, BeforeValidator(_stop_list), Field(default=None, max_length=MAX_STOPS)
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
    def _leave_out_neutral(cls, data: Any) -> Any:
        """Leaves out fields at the value where they do nothing; null is a field left out."""
        data = without_neutral(data, NEUTRAL)
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or k not in cls.model_fields}

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def new_tokens(self) -> int | None:
        """How long the output may get; None as the server was started."""
        return self.max_tokens


class ChatRequest(GenerationRequest):
    """A request to `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise ValueError(
                "max_tokens is the old name of max_completion_tokens, and they differ; send one of them"
            )
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(GenerationRequest):
    """A request to `/v1/completions`: text that is gone on with as it stands, without a chat template.

    Attributes:
        max_tokens: 16 unless given, as at OpenAI's.
    """

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: int | None = Field(default=16, ge=1)


class ErrorFacts(BaseModel):
    """What went wrong, in OpenAI's words; `failures` makes it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    error: ErrorFacts


def without_neutral(data: Any, neutral: dict[str, tuple[Any, ...]]) -> Any:
    """The same object without fields that do nothing at the value they have."""
    if not isinstance(data, dict):
        return data
    return {
        name: value
        for name, value in data.items()
        if name not in neutral or not (value is None or value in neutral[name])
    }
