"""verl's ToolAgentLoop on the CPU, with a server that writes given texts.

Everything is verl's own (prompt, tool parser, tools, continuous tokens, masks); only its server's
client, which would ask vLLM or SGLang, is replaced.
"""

from __future__ import annotations

import asyncio

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.tools.function_tool import FunctionTool
from verl.tools.schemas import OpenAIFunctionToolSchema
from verl.workers.rollout.replica import TokenOutput

from .tiny_model import load_processor, picture

CALL = '<tool_call>\n{"name": "look", "arguments": {"code": "1"}}\n</tool_call>'
_WHAT = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
_SCHEMA = {"name": "look", "description": "Look at the image.", "parameters": _WHAT}


class Dataset:
    """The part of a data set that the loop asks: the images of a prompt."""

    @staticmethod
    async def process_vision_info(messages, **_):
        """Return images and videos."""
        parts = [
            part for one in messages if isinstance(one["content"], list) for part in one["content"]
        ]
        return [part["image"] for part in parts if part["type"] == "image"] or None, None


class TextOnly:
    """What verl has of a text model: a tokenizer and no processor."""

    def __init__(self):
        self.tokenizer = load_processor().tokenizer


def decoded(ids):
    """Return the text of ids."""
    return load_processor().tokenizer.decode(ids)


class Server:
    """A server's client that writes one text per turn (or ids, or raises an exception)."""

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts, self.asked = tokenizer, texts, []

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        """Return the next text."""
        self.asked.append(list(prompt_ids))
        text = self.texts[len(self.asked) - 1]
        if isinstance(text, Exception):
            raise text
        ids = (
            self.tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else text
        )
        return TokenOutput(
            token_ids=[*ids, self.tokenizer.eos_token_id], log_probs=[-0.5] * (len(ids) + 1)
        )


def make_loop(
    texts, look, *, response_length=2048, server=None, processor=None, family="qwen2_5_vl"
):
    """Return an agent loop with one tool, ``look(code: str)``, and its server's client.

    Args:
        texts: What the model writes, one text, list of ids or exception per turn.
        look: The tool, a function or a coroutine function.
        response_length: verl's limit of tokens after the prompt.
        server: Client in place of a `Server` of the texts.
        processor: Processor; None for the nano model's.
        family: ``model_type`` of the model.
    """
    processor = processor or load_processor()
    turns = {
        "max_user_turns": 8,
        "max_assistant_turns": 8,
        "max_parallel_calls": 1,
        "format": "hermes",
    }
    turns |= {"max_tool_response_length": 1024, "tool_response_truncate_side": "middle"}
    rollout = {
        "prompt_length": 1024,
        "response_length": response_length,
        "multi_turn": turns,
        "full_determinism": False,
    }
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}, "data": {}})
    schema = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": _SCHEMA})
    is_async = look is not None and asyncio.iscoroutinefunction(look)
    server = server or Server(processor.tokenizer, texts)
    loop = ToolAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=server,
        tokenizer=processor.tokenizer,
        processor=None if isinstance(processor, TextOnly) else processor,
        dataset_cls=Dataset,
        data_config=DictConfigWrap(OmegaConf.create({})),
        hf_model_type=family,
        tools=ToolListWrap([FunctionTool("look", look, schema, is_async)]),
    )
    return loop, server


async def run(loop, image=None, question="How many bars?"):
    """Run one episode: a question with an image."""
    content = [{"type": "image", "image": image or picture()}, {"type": "text", "text": question}]
    return await loop.run({}, raw_prompt=[{"role": "user", "content": content}])


def play(texts, look, **settings):
    """Run one episode of given texts; return verl's output."""

    async def whole():
        return await run(make_loop(texts, look, **settings)[0])

    return asyncio.run(whole())
