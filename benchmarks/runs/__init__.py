"""Runs over large volumes: scaling, forecasts, faults and read amplification."""
