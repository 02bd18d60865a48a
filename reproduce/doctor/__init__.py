"""What a machine and a dataset are fit for: python -m reproduce.doctor."""
