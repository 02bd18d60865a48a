"""Designed experiments on phantoms, which are synthetic radiographs with a known ground truth."""
