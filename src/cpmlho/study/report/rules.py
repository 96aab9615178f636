"""The rules and claims of `claims.yaml`, typed, and the cases in which each claim is decided."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import Field

from cpmlho.study.protocol import Protocol
from cpmlho.study.strict import Strict

Side = Literal["below", "above"]
PAPERS = "delta_stn"  # what the paper compares CPMLHO with
NO_THRESHOLD: list[float | None] = [None]


class Difference(Strict):
    """A method against others, paired by seed; the difference is compared with `margin`."""

    kind: Literal["difference"]
    quantity: str
    method: str
    than: list[str]
    side: Side
    datasets: list[str]
    margin: float = 0.0


class Bound(Strict):
    """A method against a number: the bound, or each threshold of the claim."""

    kind: Literal["bound"]
    quantity: str
    method: str
    bound: float | None = None
    side: Side
    datasets: list[str]


class Printed(Strict):
    """Each number of one of the paper's tables against ours; those of calibrated methods decide nothing."""

    kind: Literal["printed"]
    table: int
    calibrated: list[str] = Field(default_factory=list)


class Claim(Strict):
    """One claim of the paper."""

    id: str
    place: str
    quote: str
    rule: str
    thresholds: list[float] = Field(default_factory=list)
    tests: list[Annotated[Difference | Bound | Printed, Field(discriminator="kind")]]

    @property
    def compares(self) -> bool:
        """Whether a test holds CPMLHO against a comparator."""
        return "COMPARATOR" in self.model_dump_json()


class Reading(Strict):
    """A way to read what CPMLHO is, and the method that differs from it in CPMLHO's two parts alone."""

    name: str
    method: str
    own: str


class Rules(Strict):
    """All of `claims.yaml`."""

    readings: list[Reading]
    splits: dict[str, str]
    claims: list[Claim]


@cache
def rules() -> Rules:
    """The rules, with the claims in the paper's order."""
    text = (files("cpmlho.study.report") / "claims.yaml").read_text(encoding="utf-8")
    return Rules.model_validate(yaml.safe_load(text))


def readings_run(protocol: Protocol) -> list[str]:
    """The methods of the readings of CPMLHO that the protocol runs."""
    return [each.method for each in rules().readings if each.method in protocol.run.methods]


class Case(NamedTuple):
    """What stands for CPMLHO and for what it is held against, where a claim is decided."""

    reading: str
    comparator: str  # a method; empty for a claim that compares with none
    split: str
    threshold: float | None
    cpmlho: str
    prefix: str

    def method(self, role: str) -> str:
        """The runs that stand for a role or a method of the paper."""
        name = self.cpmlho if role == "cpmlho" else role.replace("CPMLHO", self.cpmlho)
        return self.prefix + name.replace("COMPARATOR", self.comparator)


def cases(protocol: Protocol, claim: Claim) -> list[Case]:
    """The cases of a claim for which the protocol asks for a run of CPMLHO; the first of all if it asks for none."""
    if not is_papers_setting(protocol):
        return []
    every = list(_all_cases(claim))
    return list(_asked(protocol, claim)) or [case for case in every if case[:3] == every[0][:3]]


def is_papers_setting(protocol: Protocol) -> bool:
    """Whether the runs that vary nothing are on the paper's split; otherwise the paper claims nothing of them."""
    return protocol.data.split == "last"


def are_judged(protocol: Protocol) -> bool:
    """Whether a protocol asks for a run of CPMLHO by which a claim is decided."""
    return is_papers_setting(protocol) and any(any(_asked(protocol, claim)) for claim in rules().claims)


def _asked(protocol: Protocol, claim: Claim) -> Iterator[Case]:
    roles = [getattr(test, "method", "CPMLHO") for test in claim.tests]
    asked = {*protocol.run.methods, *protocol.run.variants}
    return (case for case in _all_cases(claim) if asked & {case.method(role) for role in roles if "CPMLHO" in role})


def _all_cases(claim: Claim) -> Iterator[Case]:
    for reading in rules().readings:
        for comparator in dict.fromkeys([PAPERS, reading.own] if claim.compares else [""]):
            for split, prefix in rules().splits.items():
                for threshold in claim.thresholds or NO_THRESHOLD:
                    yield Case(reading.name, comparator, split, threshold, reading.method, prefix)
