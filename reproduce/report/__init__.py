"""Write all results to one page: python -m reproduce.report."""
