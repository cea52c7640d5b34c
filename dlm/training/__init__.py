"""From batches to weights and a run folder."""
