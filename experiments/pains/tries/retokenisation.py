"""8. Retokenisation drift: the trainer learns from other ids than the engine sampled.

Reported: verl #3960, #6719; rllm PR #272 (KL spikes); ms-swift PR #10012; ART #726.
Try: the model writes a call of its tool letter by letter, in ids that no tokenizer would choose.
Are the ids of the next prompt, and of the loss, those that were sampled?
"""

from ..verdict import fails, judge

ANSWER = "4"


def letters(tokenizer, text):
    """Return the ids of a text, encoded letter by letter."""
    return [one for letter in text for one in tokenizer.encode(letter, add_special_tokens=False)]


def result(where, sampled, kept, tokenizer, text):
    """Return the verdict on the ids that were kept."""
    usual = len(tokenizer.encode(text, add_special_tokens=False))
    same = kept[: len(sampled)] == sampled
    said = "kept exactly" if same else "encoded again"
    return judge(same, f"{where}: {len(sampled)} sampled ids (usually {usual}) {said}")


def ours():
    from dataclasses import replace

    from codedance.envs.types import Message
    from codedance.policies import load_policy
    from codedance.policies.inference.prompts import extend_tokens, prompt_ids
    from codedance.policies.interface import Conversation

    chat = load_policy("nano").model.chat
    text = "<code>\n```python\nprint(1)\n```\n</code>"
    talk = Conversation([Message("user", ("How many?",))], seed=0)
    opening = prompt_ids(chat, talk)
    sampled = [*letters(chat.tokenizer, text), chat.end_id]
    tokens = extend_tokens(talk, opening, sampled, [-0.5] * len(sampled), images=0)
    messages = [*talk.messages, Message("assistant", (text,)), Message("user", ("1",))]
    after = prompt_ids(chat, replace(talk, messages=messages, tokens=tokens))
    kept = list(after[len(opening) :])
    return result("prompt of the next turn", sampled, kept, chat.tokenizer, text)


def trl():
    from ..benches import in_trl

    def look(code: str) -> str:
        """Look at the image.

        Args:
            code: Program.
        """
        return "seen"

    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(2)]
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [1.0, 0.0]], tools=[look], rows=rows
    )
    sampled = letters(trainer._tokenizer, in_trl.CALL)
    trainer.writes = lambda turn, n: [sampled if turn == 0 else ANSWER] * n
    kept = in_trl.batch_of(trainer)["completion_ids"][0].tolist()
    found = result("GRPOTrainer", sampled, kept, trainer._tokenizer, in_trl.CALL)
    said = (
        f"{found.evidence}; AsyncGRPO encodes the conversation again each turn and takes what has "
        f"drifted out of the loss: {in_trl.drift_of_async(sampled)}"
    )
    return judge(found.result == "passes", said)


def verl():
    import asyncio

    from ..benches import in_verl

    tokenizer = in_verl.load_processor().tokenizer
    sampled = letters(tokenizer, in_verl.CALL)

    async def prompts():
        loop, server = in_verl.make_loop([sampled, ANSWER], lambda code: "seen")
        await in_verl.run(loop)
        return server.asked

    first, second = asyncio.run(prompts())
    kept = second[len(first) :]
    return result("ToolAgentLoop", sampled, kept, tokenizer, in_verl.CALL)


def verifiers():
    from ..benches import in_verifiers

    renderer = in_verifiers.renderer()
    tokenizer = renderer._tokenizer
    tags = in_verifiers.TOKENS[:2]
    call, open_tag, close_tag = in_verifiers.CALL, *(tokenizer.convert_tokens_to_ids(list(tags)))
    inner = call.removeprefix(tags[0]).removesuffix(tags[1])
    sampled = [open_tag, *letters(tokenizer, inner), close_tag, tokenizer.eos_token_id]
    opening = list(
        renderer.render(
            [in_verifiers.wire("user", "How many?")], add_generation_prompt=True
        ).token_ids
    )
    bridged = renderer.bridge_to_next_turn(opening, sampled, [in_verifiers.wire("tool", "seen")])
    if bridged is None:
        return fails("bridge_to_next_turn refuses the ids, so the conversation is encoded again")
    kept = list(bridged.token_ids)[len(opening) :]
    return result("renderers' bridge_to_next_turn", sampled, kept, tokenizer, call)
