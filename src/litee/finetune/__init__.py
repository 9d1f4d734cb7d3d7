"""Backbones, the frozen trunk, probes, LoRA branches and their heads: everything that is fitted.

Knows nothing of calibration, ensembles and reports.
"""
