"""Drawn chest phantoms: the only data here whose truth is known."""
