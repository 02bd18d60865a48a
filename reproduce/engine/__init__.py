"""What every paper's script shares, up to predictions.npz: read, split, train, resume."""
