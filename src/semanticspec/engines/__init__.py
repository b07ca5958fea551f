"""Engines: what runs a model. `base` is the protocol; one file per engine; each is imported only when used."""
