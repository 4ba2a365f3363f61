"""``codedance ask``: a question about any image."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import completion
from ..exit_codes import FAILED, FINDINGS
from ..options import Engine, EngineUrl, Json, SandboxName, Set, with_engine
from ..server_options import BaseUrl, Notes, load_named, refuse_without_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from ....policies.interface import Policy
    from ...config.server_settings import RolloutSettings

LARGER = "a larger model: codedance ask --policy Qwen/Qwen2.5-VL-7B-Instruct …"

Answerer = Annotated[
    str,
    typer.Option(
        help="nano, oracle, a checkpoint folder, a hub id or openai:MODEL.",
        autocompletion=completion.policies,
    ),
]


def ask(  # noqa: PLR0913 - the options of the command
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="Image file: PNG, JPEG, WebP, AVIF, …")
    ],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Question about the image.")],
    policy: Answerer = "nano",
    turns: Annotated[int, typer.Option(min=1, help="Maximum number of turns.")] = 6,
    save: Annotated[Path | None, typer.Option(help="Folder for returned images.")] = None,
    sandbox: SandboxName = None,
    engine: Engine = None,
    engine_url: EngineUrl = None,
    base_url: BaseUrl = None,
    notes: Notes = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Ask about an image; prints each turn: thought, code, output.

    Exits with 1 without an answer (its turns or tokens were used up, or its last turn was neither
    code nor an answer), and with 3 if the sandbox or the model's server failed.
    """
    from ....envs.picture import load_picture
    from ....envs.text.unicode_text import escape_surrogates
    from ....envs.types import Task
    from ....policies.interface import Sampling
    from ....policies.rollouts.trained_with import open_episode
    from ...config.home import find_home
    from ...config.presets import read_overrides
    from ...config.sections.sandbox_settings import open_configured
    from ...runs.used_sandbox import sandbox_for
    from ..document import document
    from ..output import say
    from .asking import play_turns
    from .terminal import episode_document, picture_folder, show_turn

    question = escape_surrogates(question)  # from a command line in another encoding
    if not question.strip():
        raise ValueError("the question is empty")
    refuse_without_server(policy, {"base_url": base_url, "notes": notes}, policy)
    overrides = read_overrides(with_engine(settings, engine, engine_url))
    served, others = _engine_of(policy, overrides)
    limits = sandbox_for(policy, sandbox, overrides=others)
    picture = load_picture(image)
    kept = save or find_home(make=False).root / "ask" / image.stem
    folder = picture_folder(kept, is_asked_for=save is not None)
    task = Task(f"ask/{image.name}", "ask", "ask", "test", question, (picture,), answer="")
    with (
        document(json) as publish,
        open_configured(limits) as opened,
        _answerer(policy, served, base_url, notes) as model,
        open_episode(task, opened, model, max_turns=turns) as episode,
    ):
        _say_what_it_knows(notes or policy, question)
        for number, turn in enumerate(play_turns(model, episode, Sampling(temperature=0.0)), 1):
            show_turn(number, turn, folder)
        if episode.ending != "answered":
            say(f"no answer: {_why_none(episode.ending, turns)}")
        publish(episode_document(episode.trajectory(policy), question))
    if episode.ending != "answered":
        raise typer.Exit(FAILED if episode.ending == "infrastructure" else FINDINGS)


def _engine_of(
    policy: str, overrides: Mapping[str, Any]
) -> tuple[RolloutSettings, Mapping[str, Any]]:
    """Return the engine's settings, and the overrides of other sections.

    Raises:
        SettingsError: An override is wrong, or an engine is asked for a policy that is no model.
    """
    from ...config.presets import with_overrides
    from ...config.settings import Preset
    from ...serving.engine.policy import refuse_unserved

    own = {key: value for key, value in overrides.items() if key.startswith("rollout.")}
    if own:
        refuse_unserved(policy)
    others = {key: value for key, value in overrides.items() if key not in own}
    return with_overrides(Preset(), own).rollout, others


def _answerer(
    policy: str, served: RolloutSettings, base_url: str | None, notes: str | None
) -> AbstractContextManager[Policy]:
    """Load a policy, on vLLM where the settings say so."""
    from ...config.home import find_home
    from ...serving.engine.policy import engine_policy, is_served
    from ..output import say

    if not is_served(policy, served):
        return nullcontext(load_named(policy, base_url=base_url, notes=notes))
    log = find_home().root / "logs" / "vllm.log"
    return engine_policy(policy, served, log=log, say=say)


def _why_none(ending: str | None, turns: int) -> str:
    """Return in words why an episode ended without an answer."""
    known = {
        "turn_limit": f"its turns were used up (--turns {turns})",
        "token_limit": "its last turn was too long and was cut",
        "malformed": "its last turn was neither code nor an answer",
        "infrastructure": "the sandbox failed, which is not the model's fault",
    }
    return known.get(ending or "", "the episode did not end")


def _say_what_it_knows(policy: str, question: str) -> None:
    """Print the families that a model was trained on, with a warning if the question is of none."""
    from ..output import say
    from .asking import match_family

    families = trained_families(policy)
    if not families:
        return
    say(f"{policy} was trained on: {', '.join(families)}")
    family = match_family(question, families)
    if family is not None:
        say(f"your question is of the family {family!r}")
        return
    examples = "\n".join(f"  {phrases[0]}" for phrases in families.values() if phrases)
    say("your question is of none of these: do not trust the answer. Questions it was trained on:")
    say(examples)
    say(LARGER)


def trained_families(policy: str) -> Mapping[str, Sequence[str]]:
    """Return the families named in the codedance.json of a model folder."""
    from ....policies.loading import NANO_FOLDER
    from ....policies.models.model_folder import read_notes

    return read_notes(NANO_FOLDER if policy == "nano" else Path(policy)).families
