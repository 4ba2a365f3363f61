"""4. Evaluators inflate or degrade silently.

Reported: DeepEyes PR #66 (unshuffled options: 84–86 became 89–92), VLMEvalKit #305, NeMo
Evaluator #1141. Try: replies that name several answers, the right one among them, to whatever
scorers the package ships; a right one as control. How many count as right?
"""

from ..verdict import fails, passes

OPTIONS = ("B or A or C", "A or B or C", "A or C or B")
ORDERS = ("546", "456", "465")
NUMBERS = tuple(" or ".join(f"\\boxed{{{one}}}" for one in order) for order in ORDERS)
TRUE = "5"


def result(right: dict, controls: dict):
    """Return the verdict on scorers by name: lists that counted, and a single right answer."""
    said = ", ".join(f"{name} {count} of {len(ORDERS)}" for name, count in right.items())
    missed = [name for name, is_right in controls.items() if not is_right]
    evidence = f"lists of answers counted as right: {said}"
    if missed:
        return fails(f"{evidence}; a single right answer is wrong for {', '.join(missed)}")
    return passes(evidence) if not any(right.values()) else fails(evidence)


def ours():
    from codedance.envs.grading import grade
    from codedance.envs.types import AnswerKind, Task

    base = {"id": "t", "suite": "t", "family": "t", "split": "test", "images": (), "question": "?"}
    option = Task(**base, answer="B", answer_kind=AnswerKind.CHOICE, choices=("cat", "dog", "ox"))
    number = Task(**base, answer=TRUE, answer_kind=AnswerKind.INTEGER)
    right = {"choice": sum(grade(option, one) for one in OPTIONS)}
    right["integer"] = sum(grade(number, " or ".join(one)) for one in ORDERS)
    controls = {"choice": grade(option, "The answer is B."), "integer": grade(number, "It is 5.")}
    return result({name: int(count) for name, count in right.items()}, controls)


def trl():
    from trl.rewards import accuracy_reward

    def score(text):
        return accuracy_reward([[{"role": "assistant", "content": text}]], [TRUE])[0] or 0.0

    right = {"accuracy_reward": int(sum(map(score, NUMBERS)))}
    return result(right, {"accuracy_reward": score("\\boxed{5}")})


def verl():
    from verl.utils.reward_score import default_compute_score, math_verify

    names = {"gsm8k": "openai/gsm8k", "math_dapo": "math_dapo", "MATH": "lighteval/MATH"}

    def score(name, text):
        if name == "math_verify":
            return math_verify.compute_score(text, TRUE) == 1.0
        text = text.replace("\\boxed{", "#### ") if name == "gsm8k" else text
        if name == "math_dapo":
            text = " or ".join(f"Answer: {one}" for one in text if one.isdigit())
        found = default_compute_score(names[name], text, TRUE)
        return (found["acc"] if isinstance(found, dict) else found) == 1.0

    every = (*names, "math_verify")
    right = {name: sum(score(name, one) for one in NUMBERS) for name in every}
    controls = {
        "gsm8k": "#### 5",
        "math_dapo": "\\boxed{5}",
        "MATH": "\\boxed{5}",
        "math_verify": "\\boxed{5}",
    }
    return result(right, {name: score(name, text) for name, text in controls.items()})


def verifiers():
    from verifiers.v1.utils.score import parse_judge_choice, verify_boxed_math_answer

    right = {
        "verify_boxed_math_answer": int(sum(verify_boxed_math_answer(n, TRUE) for n in NUMBERS))
    }
    right["parse_judge_choice"] = [parse_judge_choice(one, "ABC") for one in OPTIONS].count("B")
    controls = {"verify_boxed_math_answer": verify_boxed_math_answer("\\boxed{5}", TRUE)}
    return result(right, controls | {"parse_judge_choice": parse_judge_choice("B", "ABC") == "B"})
