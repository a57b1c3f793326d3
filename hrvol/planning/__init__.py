"""Forecast time, memory and disk of a run: ``hrvol plan``.

``plan_run`` prepares the run; ``probe`` runs trial blocks on the engine's workers, which ``calibrate`` turns
into speeds; ``mask_sample`` looks at the mask; ``forecast`` computes block sizes, bytes and
files; ``estimate`` combines them into a ``plan``; ``resources`` reports free memory and disk.
"""
