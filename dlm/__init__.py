"""Scaling-law experiments for data-constrained language modelling."""
