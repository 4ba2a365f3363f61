"""5. Images are dropped with no error.

Reported: agent-lightning #559, PR #560 (trained with no pixel values), slime #1847.
Try: a question with an image, or a tool that returns one, where the model or the path takes none.
An error passes; going on without the image fails.
"""

from ..verdict import fails, judge, passes


def ours():
    import json
    import shutil
    import tempfile
    from pathlib import Path

    from codedance.policies.loading import NANO_FOLDER
    from codedance.policies.models.model_folder import load_prompt_encoder

    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(NANO_FOLDER, Path(place) / "text"))
        (folder / "preprocessor_config.json").unlink()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = config["text_config"] | {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
        }
        (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
        try:
            load_prompt_encoder(folder)
        except Exception as error:  # noqa: BLE001 - which one is the evidence
            said = " ".join(str(error).split()).replace(place, "…")
            return passes(f"a text model is refused: {type(error).__name__}, {said[:120]}")
    return fails("a text model is taken for questions with images")


def trl():
    import asyncio

    from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop

    from ..benches import in_trl
    from ..benches.tiny_model import load_processor, picture

    tokenizer = load_processor(in_trl.template()).tokenizer
    try:
        trainer = in_trl.make_trainer(
            rewards=[lambda completions, **_: [1.0, 0.0]],
            processor=tokenizer,
            max_completion_length=4,
        )
        in_trl.batch_of(trainer)
        grpo = "GRPOTrainer with a tokenizer alone goes on"
    except Exception as error:  # noqa: BLE001 - whatever TRL raises
        grpo = f"GRPOTrainer with a tokenizer alone: {type(error).__name__}, {str(error)[:60]}"

    async def look():
        return [{"type": "image", "image": picture()}]

    loop = _AsyncRolloutLoop.__new__(_AsyncRolloutLoop)
    loop._counters, loop._rates = in_trl.tallies()
    call = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    messages, *_ = asyncio.run(loop._execute_tool_calls(call, {"look": look}))
    content = messages[0]["content"]
    said = f"AsyncGRPO makes text of a tool's image, with no error: {str(content)[:60]!r}"
    return judge(not isinstance(content, str) and "goes on" not in grpo, f"{said}; {grpo}")


def verl():
    from ..benches import in_verl

    try:
        output = in_verl.play(["4"], None, processor=in_verl.TextOnly(), family="qwen2")
    except Exception as error:  # noqa: BLE001 - whatever verl raises
        return passes(f"{type(error).__name__}: {str(error)[:150]}")
    images = output.multi_modal_data.get("images") or []
    text = in_verl.decoded(output.prompt_ids)
    return fails(
        "without a processor, process_multi_modal_info returns nothing and the loop goes on: "
        f"{len(images)} images, prompt {text[:60]!r}"
    )


def verifiers():
    from ..benches import in_verifiers

    folder = in_verifiers.scratch()
    with in_verifiers.engine(["4"], folder) as url:
        context = in_verifiers.client_of(folder, url, renderer="qwen3")
        (episode,) = in_verifiers.play(in_verifiers.make_environment([None], None), context)
    errors = [f"{one.type}: {one.message[:90]}" for one in episode.traces[0].errors]
    return judge(bool(errors), f"TrainClient with a text renderer: {errors or 'goes on'}")
