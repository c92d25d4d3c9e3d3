"""The table that every method enters: how it is made, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from poise.iga.baselines import make_baseline
from poise.iga.settings import IGA, Aggregator, Objective

Method = IGA | Objective | Aggregator | None  # None is plain fine-tuning


@dataclass(frozen=True)
class Promise:
    """A method with its settings, and what holds for it; what every method keeps is not listed.

    Args:
        settings: of `IGAConfig`.
        one_domain_is_plain: a batch of one domain gets plain fine-tuning's gradient.
        agreement_is_plain: domains with the same sequences get it too.
        any_split: micro-batches of any sizes give the gradient of the whole batch.
        even_split: micro-batches of whole sets with equally many tokens do.
        any_order: independent of the domains' numbers also with three of them; else with two.
        neutral: what to change for plain fine-tuning.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    one_domain_is_plain: bool = True
    agreement_is_plain: bool = True
    any_split: bool = False
    even_split: bool = False
    any_order: bool = True
    neutral: dict[str, Any] | None = None

    def make(self, domains: int = 3, **changes: Any) -> Method:
        """A fresh one.

        Args:
            domains: K.
            changes: of settings.
        """
        settings = self.settings | changes
        name = settings.pop("method", "iga")
        if name != "iga":
            return make_baseline(name, settings.get("method_options"), domains)
        return IGA(**settings)


def _baseline(name: str, **options: Any) -> dict[str, Any]:
    return {"method": name, "method_options": options}


PENALTY = {"penalty_weight": 3.0, "warmup_steps": 2}
NO_PENALTY = {"method_options": PENALTY | {"penalty_weight": 0.0}}

METHODS: dict[str, Promise] = {
    "iga, weight": Promise({"space": "weight", "projection": "none"}, neutral={"tau": 0.0}),
    "iga, weight, projected": Promise({"space": "weight"}, agreement_is_plain=False),
    "iga, factor": Promise(
        {"space": "factor"}, any_split=True, even_split=True, neutral={"tau": 0.0}
    ),
    "iga, direction": Promise({"space": "direction"}, even_split=True),
    "erm": Promise(_baseline("erm"), even_split=True, neutral={}),
    # Its penalty says how sure predictions are, also where there is nothing to compare.
    "irm": Promise(
        _baseline("irm", **PENALTY),
        one_domain_is_plain=False,
        agreement_is_plain=False,
        neutral=NO_PENALTY,
    ),
    "vrex": Promise(_baseline("vrex", **PENALTY), neutral=NO_PENALTY),
    "fishr": Promise(_baseline("fishr", **PENALTY), neutral=NO_PENALTY),
    "group_dro": Promise(
        _baseline("group_dro", step_size=0.5),
        even_split=True,
        neutral={"method_options": {"step_size": 0.0}},
    ),
    "and_mask": Promise(
        _baseline("and_mask"),
        any_split=True,
        even_split=True,
        neutral={"method_options": {"threshold": 0.0}},
    ),
    "sand_mask": Promise(_baseline("sand_mask"), any_split=True, even_split=True),
    # The order in which domains are projected is drawn at random.
    "pcgrad": Promise(_baseline("pcgrad"), any_split=True, even_split=True, any_order=False),
    "torchjd:IMTLG": Promise(_baseline("torchjd:IMTLG"), any_split=True, even_split=True),
}
