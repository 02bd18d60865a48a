"""Designed experiments on drawn phantoms, whose truth is known: bash reproduce/study.sh."""
