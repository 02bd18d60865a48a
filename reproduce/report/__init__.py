"""All results on one page: python -m reproduce.report."""
