"""Paraformer-online: streaming front end, SANM encoder and decoding of a FunASR folder."""
