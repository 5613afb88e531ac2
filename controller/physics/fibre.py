"""Light in optical fibre: loss, transmittance and propagation delay."""

from __future__ import annotations

import math
from collections.abc import Iterable

from controller.physics.domain import MOST, whole, within

FIBRE_LOSS_DB_PER_KM = 0.2
"""Attenuation of standard single-mode fibre at 1550 nm. Assumed where a link declares none."""

FIBRE_SPEED_KM_PER_S = 2e5
"""Speed of light in glass, rounded: a refractive index of 1.5."""


CONNECTOR_LOSS_DB = 0.3
"""Loss of one mated pair of connectors. Assumed where none is declared."""

SPLICE_LOSS_DB = 0.05
"""Loss of one fusion splice. Assumed where none is declared."""


def fibre_loss_db(length_km: float, loss_db_per_km: float = FIBRE_LOSS_DB_PER_KM) -> float:
    """Loss in dB of `length_km` >= 0 of glass at `loss_db_per_km` >= 0; splices and connectors come on top."""
    within("length_km", length_km, 0, MOST)
    within("loss_db_per_km", loss_db_per_km, 0, MOST)
    return length_km * loss_db_per_km


def path_loss_db(
    fibres_db: Iterable[float],
    *,
    connectors: int = 0,
    splices: int = 0,
    insertions_db: Iterable[float] = (),
    margin_db: float = 0.0,
    connector_loss_db: float = CONNECTOR_LOSS_DB,
    splice_loss_db: float = SPLICE_LOSS_DB,
) -> float:
    """Loss in dB of a lightpath: its fibres, connectors, splices, what it passes (`insertions_db`: switches, filters) and a margin.

    All losses are >= 0, the counts whole numbers up to 1,000,000. Raises ValueError that names the figure otherwise.
    """
    whole("connectors", connectors, 0, 1_000_000)
    whole("splices", splices, 0, 1_000_000)
    parts = [("margin_db", margin_db), ("connector_loss_db", connector_loss_db), ("splice_loss_db", splice_loss_db)]
    fibres, insertions = list(fibres_db), list(insertions_db)
    parts += [(f"fibres_db[{n}]", loss) for n, loss in enumerate(fibres)]
    parts += [(f"insertions_db[{n}]", loss) for n, loss in enumerate(insertions)]
    for name, loss in parts:
        within(name, loss, 0, MOST)
    return sum(fibres) + connectors * connector_loss_db + splices * splice_loss_db + sum(insertions) + margin_db


def transmittance(loss_db: float) -> float:
    """Share of the power that passes a loss of `loss_db` >= 0, in [0, 1]."""
    within("loss_db", loss_db, 0, MOST)
    return math.pow(10, -loss_db / 10)


def loss_db_of(transmittance: float) -> float:
    """Loss in dB of something that passes the share `transmittance`, in (0, 1]: the inverse of `transmittance`."""
    within("transmittance", transmittance, 0, 1, open_low=True)
    return abs(10 * math.log10(transmittance))


def propagation_delay_s(length_km: float) -> float:
    """One-way time of light over `length_km` >= 0 of fibre, in seconds."""
    within("length_km", length_km, 0, MOST)
    return length_km / FIBRE_SPEED_KM_PER_S
