"""3. Published scores are not reproduced.

Reported: DeepEyes #60, #91, #127; Pixel-Reasoner #32 (79.0 against 73.3); Zooming-without-Zooming #5.
Whole evaluations need the models. What can be tried: the published rule of a benchmark, here
ChartQA's relaxed accuracy, on replies whose scores were worked out from the official scorer.
"""

from ..verdict import judge, passes, untried

RELAXED = (
    # reference, reply, right by the official rule
    ("2000", "2100", True),  # 5 % off
    ("42", "44.1", False),  # 0.05000000000000003 in binary floating point
    ("42%", "0.42", True),
    ("42", "42%", False),
    ("0", "0.0", False),  # a reference of 0 is compared as text
    ("Yes", "yes", True),
    ("1000", "1,000", False),  # float() takes no comma
    ("2016", "2015", True),  # years have the 5 %, too
)


def ours():
    from codedance.envs.grading import grade
    from codedance.envs.types import AnswerKind, Task

    other = []
    for reference, reply, is_right in RELAXED:
        kind = AnswerKind.TEXT if reference == "Yes" else AnswerKind.NUMBER
        base = {"id": "t", "suite": "t", "family": "t", "split": "test", "images": ()}
        task = Task(**base, question="?", answer=reference, answer_kind=kind, tolerance=0.05)
        if bool(grade(task, reply)) != is_right:
            other.append(f"{reply} for {reference}")
    count = len(RELAXED) - len(other)
    return judge(
        not other,
        f"ChartQA: {count} of {len(RELAXED)} as the official scorer; otherwise: {', '.join(other)}",
    )


def trl():
    return untried("trl.rewards has mathematics and format, no scorer of a visual benchmark")


def verl():
    from verl.utils.reward_score import default_compute_score

    cases = (("\\boxed{12}", "12", 0.9), ("\\boxed{13}", "12", 0.0), ("12", "12", 0.0))
    cases += (("<think>x</think> \\boxed{3\\sqrt{2}}", "3\\sqrt{2}", 1.0),)
    found = [default_compute_score("hiyouga/geometry3k", one, true) for one, true, _ in cases]
    is_same = [abs(got - want) < 1e-6 for got, (*_, want) in zip(found, cases, strict=True)]
    said = f"{sum(is_same)} of {len(cases)} of its one visual benchmark, Geometry3K, by its rule"
    other = "none for ChartQA, V* or HR-Bench (reward_score/__init__.py)"
    return passes(f"{said}; {other}") if all(is_same) else judge(False, f"{said}; {other}")


def verifiers():
    return untried("verifiers.v1 ships no scorer of a visual benchmark")
