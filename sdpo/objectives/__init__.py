"""The objectives: one module each, which declares what it needs of a run and computes per-token losses."""
