"""Missing requirements of the machine, detected from its files; each with commands to fix it."""

import sys
from pathlib import Path

import pytest
from codedance.sandbox import SandboxError
from codedance.sandbox.host.machine import app_armor_profile, describe_lacks, find_lacks
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox

from .conftest import SMALL

STATUS = "Name:\tpython\nSeccomp:\t0\n"


def machine(folder, **files):
    """Return a root folder with these files; double underscores represent slashes."""
    for name, text in {"proc__self__status": STATUS, **files}.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_machine_without_faults_lacks_nothing(tmp_path):
    root = machine(
        tmp_path,
        proc__sys__user__max_user_namespaces="15000\n",
        proc__sys__kernel__unprivileged_userns_clone="1\n",
        proc__sys__kernel__apparmor_restrict_unprivileged_userns="0\n",
        sys__kernel__security__lsm="lockdown,capability,landlock,yama",
    )
    assert find_lacks(root) == ()


@pytest.mark.parametrize(
    ("files", "words", "command"),
    [
        (
            {"proc__sys__user__max_user_namespaces": "0\n"},
            "user.max_user_namespaces = 0",
            "echo 'user.max_user_namespaces = 15000' | sudo tee -a /etc/sysctl.d/60-codedance.conf",
        ),
        (
            {"proc__sys__kernel__unprivileged_userns_clone": "0\n"},
            "only root may make user namespaces",
            "echo 'kernel.unprivileged_userns_clone = 1'",
        ),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n"},
            "as in Ubuntu 24.04",
            "sudo apparmor_parser -r /etc/apparmor.d/codedance-worker",
        ),
        (
            {".dockerenv": "", "proc__self__status": "Seccomp:\t2\n"},
            "a container whose seccomp profile refuses",
            "--security-opt seccomp=unconfined",
        ),
        (
            {"sys__kernel__security__lsm": "capability,yama"},
            "landlock is not switched on",
            "lsm=landlock,capability,yama",
        ),
        ({"proc__self__status": "Name:\tx\n"}, "no seccomp", "CONFIG_SECCOMP_FILTER"),
    ],
    ids=["no namespaces", "root only", "AppArmor", "a container", "no landlock", "no seccomp"],
)
def test_each_missing_requirement_has_its_own_fix(tmp_path, files, words, command):
    (lack,) = find_lacks(machine(tmp_path, **files))
    assert words in lack.what
    assert command in lack.remedy
    assert words in describe_lacks((lack,))


def test_the_profile_for_ubuntu_names_the_workers_own_interpreter(tmp_path):
    root = machine(tmp_path, proc__sys__kernel__apparmor_restrict_unprivileged_userns="1\n")
    (lack,) = find_lacks(root)
    executable = str(Path(sys.executable).resolve())
    assert app_armor_profile(executable) in lack.remedy
    assert f"profile codedance-worker {executable} flags=(unconfined) {{\n  userns,\n}}" in (
        lack.remedy
    )


def test_the_error_below_the_minimum_level_says_what_is_available_and_what_to_do(confined):
    plan = ZygotePlan(confined._plan.interpreter, (), SMALL, "confined")
    with pytest.raises(SandboxError) as caught:
        LocalSandbox(plan, floor="full")
    words = str(caught.value)
    assert "offers the tier 'confined'" in words
    assert "below the floor 'full'; lower the floor, or add what is missing" in words
    assert "docs/sandbox.md" in words or "To fix it" in words
