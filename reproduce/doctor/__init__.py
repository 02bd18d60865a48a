"""Check a machine and a dataset before hours are spent on them: python -m reproduce.doctor."""
