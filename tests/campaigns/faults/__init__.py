"""Bad input of every kind: `python -m tests.campaigns.faults --help`."""
