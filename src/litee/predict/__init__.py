"""Probabilities from fitted members: calibration, the ensemble, the Judge artifact.

Knows nothing of training and reports.
"""
