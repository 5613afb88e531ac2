"""Light in optical fibre: loss, transmittance and propagation delay."""

from __future__ import annotations

import math

from controller.physics.domain import within

FIBRE_LOSS_DB_PER_KM = 0.2
"""Attenuation of standard single-mode fibre at 1550 nm. Assumed where a link declares none."""

FIBRE_SPEED_KM_PER_S = 2e5
"""Speed of light in glass, rounded: a refractive index of 1.5."""


def fibre_loss_db(length_km: float, loss_db_per_km: float = FIBRE_LOSS_DB_PER_KM) -> float:
    """Loss in dB of `length_km` >= 0 of glass at `loss_db_per_km` >= 0; splices and connectors come on top."""
    within("length_km", length_km, 0)
    within("loss_db_per_km", loss_db_per_km, 0)
    return length_km * loss_db_per_km


def transmittance(loss_db: float) -> float:
    """Share of the power that passes a loss of `loss_db` >= 0, in [0, 1]."""
    within("loss_db", loss_db, 0)
    return math.pow(10, -loss_db / 10)


def loss_db_of(transmittance: float) -> float:
    """Loss in dB of something that passes the share `transmittance`, in (0, 1]: the inverse of `transmittance`."""
    within("transmittance", transmittance, 0, 1, open_low=True)
    return abs(10 * math.log10(transmittance))


def propagation_delay_s(length_km: float) -> float:
    """One-way time of light over `length_km` >= 0 of fibre, in seconds."""
    within("length_km", length_km, 0)
    return length_km / FIBRE_SPEED_KM_PER_S
