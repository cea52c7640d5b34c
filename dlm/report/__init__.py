"""Figures, pages and tables."""
