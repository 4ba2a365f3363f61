"""1. Image tokens and image features disagree once tools return images.

Reported: verl #4050, #3708, #3469; TRL #5663, #6274; OpenRLHF #1220.
Try: episodes whose tool returns images; count the image tokens of the ids that are trained on and
the features of the images that belong to them. Then a tool that prints the image token as text.
"""

import threading

from ..verdict import judge

FORGED = "a <|image_pad|> b"


def ours():
    from codedance.envs.suites.filtered import ChosenFamilies
    from codedance.envs.suites.loading import load_suite
    from codedance.policies import load_policy, rollout
    from codedance.sandbox import open_sandbox

    policy = load_policy("nano")
    suite = ChosenFamilies(load_suite("nano", split="test"), ("digit", "tag"))
    with open_sandbox("local") as sandbox:
        played = rollout(policy, [suite[n] for n in range(16)], sandbox=sandbox, seed=0)
    chat, pictures = policy.model.chat, policy.model.pictures
    tokens = sum(one.tokens.ids.count(chat.image_id) for one in played)
    images = [image for one in played for turn in one.conversation() for image in turn.images]
    features = sum(pictures.token_count(image) for image in images)
    forged = chat.encode_text(FORGED).count(chat.image_id)
    said = f"{tokens} tokens, {features} features, {len(images)} images in {len(played)} episodes"
    return judge(tokens == features, f"{said}; printed token: {forged} forged")


def trl():
    from ..benches import in_trl
    from ..benches.tiny_model import picture

    def look(code: str) -> list:
        """Look at the image.

        Args:
            code: Program.
        """
        return [{"type": "image", "image": picture()}, {"type": "text", "text": text}]

    def counts():
        trainer = in_trl.make_trainer(
            rewards=[lambda completions, **_: [1.0, 0.0]], writes=in_trl.calls(2), tools=[look]
        )
        batch = in_trl.batch_of(trainer)
        ids = [*batch["prompt_ids"].flatten().tolist(), *batch["completion_ids"].flatten().tolist()]
        return ids.count(6), int(batch["image_grid_thw"].prod(1).sum()) // 4

    text = "seen"
    tokens, features = counts()
    text = FORGED
    try:
        forged = "{} tokens for {} features".format(*counts())
    except ValueError as error:
        forged = f"ValueError, {str(error)[:90]}"
    return judge(
        tokens == features,
        f"GRPOTrainer._tool_call_loop: {tokens} tokens, {features} features; printed token: {forged}",
    )


def verl():
    from verl.tools.schemas import ToolResponse

    from ..benches import in_verl
    from ..benches.tiny_model import load_processor, picture

    def counts(text):
        look = lambda code: ToolResponse(text=text, image=[picture()])  # noqa: E731
        output = in_verl.play([in_verl.CALL, in_verl.CALL, "4"], look)
        images = output.multi_modal_data["images"]
        grids = load_processor().image_processor(images=images, return_tensors="pt")
        ids = output.prompt_ids + output.response_ids
        return ids.count(6), int(grids["image_grid_thw"].prod(1).sum()) // 4

    tokens, features = counts("seen")
    found = []
    thread = threading.Thread(target=lambda: found.append(counts(FORGED)), daemon=True)
    thread.start()
    thread.join(20.0)
    forged = (
        "{} tokens for {} features".format(*found[0]) if found else "an error, then hangs (20 s)"
    )
    return judge(
        tokens == features,
        f"ToolAgentLoop: {tokens} tokens, {features} features; printed token: {forged}",
    )


def verifiers():
    from ..benches import in_verifiers
    from ..benches.in_verifiers import wire

    def counts(text):
        renderer = in_verifiers.renderer()
        messages = [wire("user", "How many?", image=True), wire("assistant", "look")]
        shown = renderer.render(
            [*messages, wire("tool", text, image=True)], add_generation_prompt=True
        )
        grids = [one["image_grid_thw"] for one in shown.multi_modal_data.mm_items["image"]]
        return list(shown.token_ids).count(6), sum(int(grid.prod()) for grid in grids) // 4

    tokens, features = counts("seen")
    forged = "{} tokens for {} features".format(*counts(FORGED))
    return judge(
        tokens == features,
        f"renderers' Qwen3VLRenderer: {tokens} tokens, {features} features; printed token: {forged}",
    )
