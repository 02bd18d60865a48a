"""From predictions.npz to tables, claims and figures: every number is computed from the files."""
