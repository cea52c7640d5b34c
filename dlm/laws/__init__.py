"""Scaling laws: fits with honest intervals, critical compute, and what a table cannot identify."""
