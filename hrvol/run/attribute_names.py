"""Names of attributes of an output that only some runs have."""

from __future__ import annotations

ARITHMETIC = "arithmetic"
"""Attribute with :data:`hrvol.features.arithmetic.ARITHMETIC`; outputs of 0.1.0 and of students have none."""

CLASS_WEIGHTS = "class_weights"
"""Attribute with the factor of each class; outputs without class weights have none."""

BACKEND = "backend"
"""Attribute with what computed a student's network; absent if it was torch."""

COMPANION = "companion"
"""Attribute with the student whose probabilities were averaged with the model's; absent without one."""

FRACTIONS = "fractions"
"""Attribute with the volume fraction of each class by which factors were chosen, if they were."""

CLEANING = "cleaning"
"""Steps of a cleaning; only cleaned labels have it."""

DRIFT = "drift"
"""Attribute with the distances of some planes from the training pixels; absent if none were compared."""

CALIBRATION = "calibration"
"""Attribute with the temperature of probabilities and uncertainty; absent without one."""
