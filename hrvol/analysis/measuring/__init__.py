"""Measure label volumes: fractions with intervals, surfaces, contacts, components, correlations, chords."""
