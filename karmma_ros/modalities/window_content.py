"""Whether the sensors of a recorded window show anything, as the content checks judge live."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.content_check import (
    content_declarations,
    ContentMonitor,
    SampleContext,
)
from karmma_ros.modality import Modality


def uninformative(
    arrays: Mapping[Modality, Any], clip: ClipSpec, computed: Collection[Modality] = (),
) -> dict[Modality, str]:
    """
    Return the modalities that a node would leave out at the end of a window, with the reason.

    The checks have their default parameters and see nothing from before the window.

    :param arrays: modality → what `ModalityType.prepare` takes.
    :param computed: modalities that are computed from their source, whose finding they share.
    """
    monitors = {m: _monitor(m) for m in arrays if m not in computed}
    used = {m: each for m, each in monitors.items() if each is not None}
    checks = {m: each.check for m, each in used.items()}
    messages = sorted(
        ((time_s, m, sample) for m in used
         for time_s, sample in modality_type(m).messages_of(arrays[m], clip)),
        key=lambda message: message[0])
    missing: dict[Modality, int] = {}
    for time_s, modality, sample in messages:
        if sample is None:
            missing[modality] = missing.get(modality, 0) + 1
            continue
        received, decoder = modality_type(modality).stand_ins(sample, clip)
        used[modality].update(sample, SampleContext(
            cast(Any, received), cast(Any, decoder), round(time_s * NANOSECONDS), checks))
    findings = {m: monitor.finding.text for m, monitor in used.items() if monitor.finding}
    counts = {m: sum(modality is m for _, modality, _ in messages) for m in missing}
    findings |= {m: 'no data in any message' for m, count in missing.items()
                 if count == counts[m]}
    for modality in computed:
        source = modality_type(modality).source(clip)
        if modality in arrays and source in findings:
            findings[modality] = findings[source]
    return findings


def default_thresholds(modality: Modality) -> dict[str, Any]:
    """Return the parameters of a modality's check with their defaults; none without a check."""
    check = modality_type(modality).content_check
    return {} if check is None else {
        each.name: each.default for each in content_declarations(modality, check)}


def _monitor(modality: Modality) -> ContentMonitor | None:
    check = modality_type(modality).content_check
    return None if check is None else ContentMonitor(check(modality, default_thresholds(modality)))
