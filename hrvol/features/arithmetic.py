"""The number of the arithmetic by which features and class probabilities are computed."""

ARITHMETIC = 2
"""Raised whenever last bits change, so that an output is never made of two arithmetics.

1: version 0.1.0. 2: views are added up on a joint grid (:mod:`hrvol.features.deep.joint_grid`), the membrane
filter adds up runs (other bits where grey values are not those of 8 bits), and standardisation is folded into
the weights of linear classifiers. Students compute no features: it does not concern them.
"""
