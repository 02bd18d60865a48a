"""Score predictions that exist already: python -m reproduce.rescore."""
