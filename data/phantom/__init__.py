"""Phantoms: synthetic chest radiographs, the only images here whose true findings are known."""
